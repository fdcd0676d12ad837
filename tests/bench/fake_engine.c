/* A fake llama-server at native speed, for measuring what stands in front of it.
 *
 * Listens on a unix socket, one thread, epoll. The request's body says what to do:
 *   "stream":true      answer as server-sent events, else as one JSON document
 *   "max_tokens":N     number of events (default 16)
 *   "seed":D           microseconds between two events; 0 = as fast as the reader takes them
 * GET /bench answers {"active":..,"started":..,"finished":..,"aborted":..} (streams), GET anything else 200 "ok".
 *
 * Usage: fake_engine SOCKET_PATH
 */
#define _GNU_SOURCE
#include <errno.h>
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

#define MAX_FD 8192
#define IN_SIZE 65536
#define OUT_SIZE 16384

static const char EVENT[] =
    "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"content\":\" token\"}}],\"created\":1795382768,"
    "\"id\":\"chatcmpl-FztF2pi0Zc8GtptBfPSIIlhHVhBx12sq\",\"model\":\"bench\",\"system_fingerprint\":\"b1-0c1e570\","
    "\"object\":\"chat.completion.chunk\"}\n\n";
static const char TAIL[] =
    "data: {\"choices\":[{\"finish_reason\":\"length\",\"index\":0,\"delta\":{}}],\"created\":1795382768,"
    "\"id\":\"chatcmpl-FztF2pi0Zc8GtptBfPSIIlhHVhBx12sq\",\"model\":\"bench\",\"object\":\"chat.completion.chunk\","
    "\"timings\":{\"cache_n\":0,\"prompt_n\":31,\"prompt_ms\":2.871,\"predicted_n\":%d,\"predicted_ms\":2.938}}\n\n";
static const char STREAM_HEAD[] =
    "HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nAccess-Control-Allow-Origin: *\r\nContent-Type: text/event-stream\r\n"
    "Transfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n";

struct connection {
    int fd, in_use, in_length, events_left, total, head_sent, tail_sent, out_offset, out_length, want_write;
    uint64_t delay_us, due_us;
    char *in, out[OUT_SIZE];
};

static struct connection *connections[MAX_FD];
static int epoll_fd, highest;
static long active, started, finished, aborted;
static char event_chunk[1024];
static int event_chunk_length;

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static void drop(struct connection *c) {
    if (c->events_left > 0 || (c->total && !c->tail_sent)) {
        active--;
        aborted++;
    }
    close(c->fd);
    c->in_use = 0;
    c->in_length = c->events_left = c->total = c->out_length = c->out_offset = 0;
}

static void watch(struct connection *c, int write) {
    if (c->want_write == write) return;
    c->want_write = write;
    struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP | (write ? EPOLLOUT : 0), .data.fd = c->fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
}

/* Sends what is buffered. Returns 0 when the socket takes no more (or the connection is gone). */
static int flush(struct connection *c) {
    while (c->out_offset < c->out_length) {
        ssize_t n = send(c->fd, c->out + c->out_offset, (size_t)(c->out_length - c->out_offset), MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) watch(c, 1);
            else drop(c);
            return 0;
        }
        c->out_offset += (int)n;
    }
    c->out_offset = c->out_length = 0;
    return 1;
}

static void put(struct connection *c, const char *bytes, int length) {
    memcpy(c->out + c->out_length, bytes, (size_t)length);
    c->out_length += length;
}

static int chunk(char *to, const char *bytes, int length) {
    int n = sprintf(to, "%x\r\n", length);
    memcpy(to + n, bytes, (size_t)length);
    memcpy(to + n + length, "\r\n", 2);
    return n + length + 2;
}

/* Produces what is due on a stream; called when the socket is writable and when the next event is due. */
static void advance(struct connection *c, uint64_t now) {
    if (!flush(c)) return;
    if (!c->total) { watch(c, 0); return; }
    for (;;) {
        if (c->delay_us && now < c->due_us) { watch(c, 0); return; }
        if (!c->head_sent) { put(c, STREAM_HEAD, sizeof STREAM_HEAD - 1); c->head_sent = 1; }
        int budget = c->delay_us ? 1 : 1 << 30;
        while (c->events_left > 0 && budget-- > 0 && c->out_length + event_chunk_length < OUT_SIZE) {
            put(c, event_chunk, event_chunk_length);
            c->events_left--;
        }
        c->due_us += c->delay_us;
        if (c->events_left == 0 && c->out_length + 2048 < OUT_SIZE) {
            char text[1024];
            int n = snprintf(text, sizeof text, TAIL, c->total);
            c->out_length += chunk(c->out + c->out_length, text, n);
            c->out_length += chunk(c->out + c->out_length, "data: [DONE]\n\n", 14);
            put(c, "0\r\n\r\n", 5);
            c->tail_sent = 1;
            c->total = 0;
            active--;
            finished++;
        }
        if (!flush(c)) return;
        if (c->tail_sent && !c->total) { watch(c, 0); return; }
    }
}

static long number_after(const char *text, const char *name, long fallback) {
    const char *at = strstr(text, name);
    if (!at) return fallback;
    at += strlen(name);
    while (*at == ' ' || *at == ':') at++;
    return strtol(at, NULL, 10);
}

static void respond(struct connection *c, const char *body) {
    char text[1024];
    int n = snprintf(text, sizeof text,
                     "HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nAccess-Control-Allow-Origin: *\r\n"
                     "Content-Type: application/json; charset=utf-8\r\nContent-Length: %zu\r\n"
                     "Keep-Alive: timeout=5, max=100\r\n\r\n%s", strlen(body), body);
    put(c, text, n);
    flush(c);
}

/* Handles one complete request in the buffer. Returns the bytes it took, 0 when it is not complete yet. */
static int handle(struct connection *c) {
    c->in[c->in_length] = 0;
    char *end = strstr(c->in, "\r\n\r\n");
    if (!end) return 0;
    int head = (int)(end + 4 - c->in);
    char *length_field = strcasestr(c->in, "\r\ncontent-length:");
    int length = length_field && length_field < end ? (int)strtol(length_field + 17, NULL, 10) : 0;
    if (c->in_length < head + length) return 0;
    char saved = c->in[head + length];
    c->in[head + length] = 0;
    const char *body = c->in + head;
    if (!strncmp(c->in, "GET /bench", 10)) {
        char text[200];
        snprintf(text, sizeof text, "{\"active\":%ld,\"started\":%ld,\"finished\":%ld,\"aborted\":%ld}", active, started,
                 finished, aborted);
        respond(c, text);
    } else if (!strncmp(c->in, "GET ", 4)) {
        respond(c, "{\"status\":\"ok\"}");
    } else if (strstr(body, "\"stream\":true") || strstr(body, "\"stream\": true")) {
        c->total = c->events_left = (int)number_after(body, "\"max_tokens\"", 16);
        c->delay_us = (uint64_t)number_after(body, "\"seed\"", 0);
        c->due_us = now_us();
        c->head_sent = c->tail_sent = 0;
        active++;
        started++;
        advance(c, c->due_us);
    } else {
        respond(c, "{\"choices\":[{\"finish_reason\":\"length\",\"index\":0,\"message\":{\"role\":\"assistant\","
                   "\"content\":\"some words that a model might say\"}}],\"created\":1795382768,\"model\":\"bench\","
                   "\"object\":\"chat.completion\",\"usage\":{\"completion_tokens\":20,\"prompt_tokens\":31,"
                   "\"total_tokens\":51},\"id\":\"chatcmpl-FztF2pi0Zc8GtptBfPSIIlhHVhBx12sq\",\"timings\":"
                   "{\"cache_n\":0,\"prompt_n\":31,\"prompt_ms\":2.871,\"predicted_n\":20,\"predicted_ms\":2.938}}");
    }
    c->in[head + length] = saved;
    return head + length;
}

static void readable(struct connection *c) {
    for (;;) {
        ssize_t n = recv(c->fd, c->in + c->in_length, (size_t)(IN_SIZE - 1 - c->in_length), 0);
        if (n == 0 || (n < 0 && errno != EAGAIN)) { drop(c); return; }
        if (n < 0) return;
        c->in_length += (int)n;
        int used;
        while (c->in_use && c->in_length && (used = handle(c)) > 0) {
            memmove(c->in, c->in + used, (size_t)(c->in_length - used));
            c->in_length -= used;
        }
        if (!c->in_use) return;
    }
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MAX_FD) { close(fd); continue; }
        struct connection *c = connections[fd];
        if (!c) {
            c = connections[fd] = calloc(1, sizeof *c);
            c->in = malloc(IN_SIZE);
        }
        c->fd = fd;
        c->in_use = 1;
        c->want_write = 0;
        if (fd > highest) highest = fd;
        struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP, .data.fd = fd};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
    }
}

int main(int count, char **arguments) {
    if (count != 2) { fprintf(stderr, "usage: fake_engine SOCKET_PATH\n"); return 64; }
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    signal(SIGPIPE, SIG_IGN);
    event_chunk_length = chunk(event_chunk, EVENT, sizeof EVENT - 1);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, arguments[1], sizeof address.sun_path - 1);
    unlink(arguments[1]);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
        perror(arguments[1]);
        return 69;
    }
    epoll_fd = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e);
    struct epoll_event events[256];
    for (;;) {
        int n = epoll_wait(epoll_fd, events, 256, active > 0 ? 1 : 1000);
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == listener) { accept_all(listener); continue; }
            struct connection *c = connections[events[i].data.fd];
            if (!c->in_use) continue;
            if (events[i].events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)) { drop(c); continue; }
            if (events[i].events & EPOLLIN) readable(c);
            if (c->in_use && (events[i].events & EPOLLOUT)) { advance(c, now_us()); }
        }
        if (active > 0) {
            uint64_t now = now_us();
            for (int fd = 0; fd <= highest; fd++) {
                struct connection *c = connections[fd];
                if (c && c->in_use && c->total && c->delay_us && !c->want_write && now >= c->due_us) advance(c, now);
            }
        }
    }
}
