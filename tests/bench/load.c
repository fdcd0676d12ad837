/* A load generator for chat endpoints at native speed: one thread, epoll, keep-alive, HTTP/1.1.
 *
 * Usage: load TARGET KEY MODE CONNECTIONS SECONDS TOKENS DELAY_US
 *   TARGET  unix:PATH or HOST:PORT (dotted quad)
 *   MODE    plain    closed loop of non-stream requests for SECONDS
 *           stream   closed loop of streams of TOKENS events for SECONDS
 *           once     one stream per connection, then stop (SECONDS is the limit)
 *           abandon  one stream per connection; all are closed after their first event
 *           hold     one stream per connection; prints a line when all have their first event, holds for SECONDS
 * Prints one JSON object: requests, other (answers that were not 200), events, seconds, and percentiles in
 * microseconds of the time to the first byte of the body's first event (streams) or to the whole answer (plain).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BUFFER 262144
#define MAX_SAMPLES 4000000

struct connection {
    int fd, status, in_body, content_length, body_seen, got_first, done, window_length;
    uint64_t sent_us;
    char window[16];   /* the end of the last read, so that a marker split over two reads is seen */
    char head[16384];
    int head_length;
};

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static char request[4096], buffer[BUFFER + 32];
static int request_length;
static const char *target;
static uint32_t *samples;
static long sample_count, requests, other, events, broken;
static int epoll_fd, stream_mode;

static int open_socket(void) {
    int fd;
    if (!strncmp(target, "unix:", 5)) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        strncpy(address.sun_path, target + 5, sizeof address.sun_path - 1);
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&address, sizeof address)) { perror(target); exit(69); }
    } else {
        char host[64];
        int port = 0;
        sscanf(target, "%63[^:]:%d", host, &port);
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        inet_pton(AF_INET, host, &address.sin_addr);
        fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&address, sizeof address)) { perror(target); exit(69); }
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void attach(struct connection *c, int index) {
    c->fd = open_socket();
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = (uint32_t)index};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e);
}

static void send_request(struct connection *c) {
    c->status = c->in_body = c->body_seen = c->got_first = c->head_length = c->window_length = 0;
    c->content_length = -1;
    c->sent_us = now_us();
    if (send(c->fd, request, (size_t)request_length, MSG_NOSIGNAL) != request_length) broken++;
}

static void sample(struct connection *c) {
    if (sample_count < MAX_SAMPLES) samples[sample_count++] = (uint32_t)(now_us() - c->sent_us);
}

/* Counts markers in the bytes just read, and returns whether the answer ended. */
static int consume(struct connection *c, char *bytes, int length) {
    if (!c->in_body) {
        int room = (int)sizeof c->head - 1 - c->head_length, take = length < room ? length : room;
        memcpy(c->head + c->head_length, bytes, (size_t)take);
        c->head_length += take;
        c->head[c->head_length] = 0;
        char *end = strstr(c->head, "\r\n\r\n");
        if (!end) return 0;
        c->status = atoi(c->head + 9);
        char *field = strcasestr(c->head, "\r\ncontent-length:");
        if (field && field < end) c->content_length = atoi(field + 17);
        int head = (int)(end + 4 - c->head), before = c->head_length - take;
        bytes += head - before;
        length -= head - before;
        c->in_body = 1;
    }
    c->body_seen += length;
    if (c->content_length >= 0) return c->body_seen >= c->content_length;
    /* Search in the remembered tail plus the new bytes. */
    char *start = bytes - c->window_length;
    memcpy(start, c->window, (size_t)c->window_length);
    int total = length + c->window_length;
    for (char *at = start; (at = memmem(at, (size_t)(start + total - at), "data: {", 7)); at += 7) {
        events++;
        if (!c->got_first) { c->got_first = 1; sample(c); }
    }
    int ended = total >= 7 && !memcmp(start + total - 7, "\r\n0\r\n\r\n", 7);
    int keep = total < 6 ? total : 6;
    memmove(c->window, start + total - keep, (size_t)keep);
    c->window_length = keep;
    return ended;
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static uint32_t percentile(double p) { return sample_count ? samples[(long)(p * (double)(sample_count - 1))] : 0; }

int main(int count, char **arguments) {
    if (count != 8) { fprintf(stderr, "usage: load TARGET KEY MODE CONNECTIONS SECONDS TOKENS DELAY_US\n"); return 64; }
    target = arguments[1];
    const char *mode = arguments[3];
    int n = atoi(arguments[4]), tokens = atoi(arguments[6]), delay = atoi(arguments[7]);
    double seconds = atof(arguments[5]);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    signal(SIGPIPE, SIG_IGN);
    stream_mode = strcmp(mode, "plain") != 0;
    int loops = !strcmp(mode, "plain") || !strcmp(mode, "stream");
    char body[1024];
    int body_length = snprintf(body, sizeof body,
        "{\"model\":\"bench\",\"messages\":[{\"role\":\"user\",\"content\":\"Tell me something about load.\"}],"
        "\"stream\":%s,\"max_tokens\":%d,\"seed\":%d}", stream_mode ? "true" : "false", tokens, delay);
    request_length = snprintf(request, sizeof request,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nUser-Agent: load\r\n"
        "Accept: application/json\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
        arguments[2], body_length, body);
    samples = malloc(sizeof(uint32_t) * MAX_SAMPLES);
    epoll_fd = epoll_create1(0);
    struct connection *connections = calloc((size_t)n, sizeof *connections);
    for (int i = 0; i < n; i++) attach(&connections[i], i);
    uint64_t begin = now_us(), stop = begin + (uint64_t)(seconds * 1e6);
    for (int i = 0; i < n; i++) send_request(&connections[i]);
    int running = n, first = 0, announced = 0;
    struct epoll_event ready[512];
    while (running > 0) {
        uint64_t now = now_us();
        if (now >= stop) break;
        int m = epoll_wait(epoll_fd, ready, 512, (int)((stop - now) / 1000 + 1));
        for (int i = 0; i < m; i++) {
            int index = (int)ready[i].data.u32;
            struct connection *c = &connections[index];
            char *at = buffer + 32;
            ssize_t got = recv(c->fd, at, BUFFER, 0);
            if (got < 0 && errno == EAGAIN) continue;
            if (got <= 0) {
                if (!c->done && c->sent_us) broken++;
                close(c->fd);
                if (loops && now_us() < stop) { attach(c, index); send_request(c); }
                else if (!c->done) { c->done = 1; running--; }
                continue;
            }
            int had = c->got_first, ended = consume(c, at, (int)got);
            if (!had && c->got_first) first++;
            if (!strcmp(mode, "abandon") && c->got_first && first == n) { running = 0; break; }
            if (!strcmp(mode, "hold") && first == n && !announced) {
                announced = 1;
                printf("holding\n");
                fflush(stdout);
                stop = now_us() + (uint64_t)(seconds * 1e6);
            }
            if (!ended) continue;
            requests++;
            if (c->status != 200) other++;
            if (!stream_mode || c->status != 200) sample(c);
            if (loops) send_request(c);
            else { c->done = 1; running--; }
        }
    }
    double elapsed = (double)(now_us() - begin) / 1e6;
    for (int i = 0; i < n; i++) close(connections[i].fd);
    qsort(samples, (size_t)sample_count, sizeof *samples, compare);
    printf("{\"requests\":%ld,\"other\":%ld,\"events\":%ld,\"broken\":%ld,\"first\":%d,\"seconds\":%.6f,"
           "\"p50_us\":%u,\"p90_us\":%u,\"p99_us\":%u}\n",
           requests, other, events, broken, first, elapsed, percentile(.5), percentile(.9), percentile(.99));
    return 0;
}
