# Included by CMake right after the engine's project() (build.py passes -DCMAKE_PROJECT_llama_cpp_INCLUDE): what we change
# in llama.cpp before it is compiled. Each edit names the text it expects, and a text that is not there stops the
# build: then look whether the newer llama.cpp still needs the edit.

set(_source "${CMAKE_SOURCE_DIR}/vendor/llama.cpp")

function(edit name before after)
  set(_file "${_source}/${name}")
  file(READ "${_file}" _text)
  string(FIND "${_text}" "${after}" _done)
  if(_done EQUAL -1)
    string(FIND "${_text}" "${before}" _found)
    if(_found EQUAL -1)
      message(FATAL_ERROR "image/engine/patches.cmake: ${_file} does not hold what it changes:\n${before}")
    endif()
    string(REPLACE "${before}" "${after}" _text "${_text}")
    file(WRITE "${_file}" "${_text}")
  endif()
endfunction()

# 1. Clients that have gone.
#
# llama-server looks whether a client is still there only when no result for ANYBODY has come for a whole second, because
# each result wakes all who wait and each starts its second anew. So while one client streams, another who leaves a plain
# request, or a prompt that is being read, keeps its slot to the end; and who leaves a batch of short embeddings is never
# missed. With one deadline for the whole wait, and a look between the results of a batch, it notices within 200 ms.
edit(tools/server/server-queue.cpp
  [[recv_with_timeout(const std::unordered_set<int> & id_tasks, int timeout) {
]]
  [[recv_with_timeout(const std::unordered_set<int> & id_tasks, int timeout) {
    const auto give_up_at = std::chrono::steady_clock::now() + std::chrono::milliseconds(200 * timeout);
]])
edit(tools/server/server-queue.cpp
  [[condition_results.wait_for(lock, std::chrono::seconds(timeout))]]
  [[condition_results.wait_until(lock, give_up_at)]])
edit(tools/server/server-queue.cpp
  [[auto res = next(should_stop);]]
  [[auto res = should_stop() ? nullptr : next(should_stop);]])

# 2. What a request has used, also when nobody waited for its end.
#
# llama-server tells counts with the end of an answer and forgets them with the slot, so nobody can know what an answer
# has cost whose client left. It now keeps them for a while under the id its client sent as X-Usage-Id, and GET /usage?id=
# tells them: `open` tasks may still work, and the counts are whole once there are none. Tokens of a prompt that several
# answers share are counted once, as they are read once.
file(WRITE "${_source}/tools/server/server-usage.h" [[#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>

// what each request has used, by the id its client gave it; safe to be used by all threads
class server_usage_book {
public:
    struct counts {
        bool    known      = false; // whether it has come to tasks
        int64_t open       = 0; // tasks that wait or work
        int64_t prompt     = 0; // tokens read, those from the cache included
        int64_t cached     = 0;
        int64_t completion = 0; // tokens generated
    };

    void open(const std::string & id, const std::unordered_set<int> & tasks) {
        if (id.empty()) {
            return;
        }
        std::lock_guard<std::mutex> lock(mutex);
        forget_old();
        requests[id].known = true;
        requests[id].open += tasks.size();
        for (const int task : tasks) {
            owners[task] = id;
        }
    }

    // a task that is not known, or closed already, changes nothing
    void close(int task, const counts & used) {
        std::lock_guard<std::mutex> lock(mutex);
        const auto owner = owners.find(task);
        if (owner == owners.end()) {
            return;
        }
        counts & total = requests[owner->second];
        total.prompt     += used.prompt;
        total.cached     += used.cached;
        total.completion += used.completion;
        if (--total.open == 0) {
            finished.emplace_back(clock::now(), owner->second);
        }
        owners.erase(owner);
    }

    // all zero for a request that has not come to a task yet, or never did
    counts read(const std::string & id) {
        std::lock_guard<std::mutex> lock(mutex);
        const auto found = requests.find(id);
        return found == requests.end() ? counts{} : found->second;
    }

private:
    using clock = std::chrono::steady_clock;

    std::mutex mutex;
    std::unordered_map<std::string, counts> requests;
    std::unordered_map<int, std::string> owners; // of tasks
    std::deque<std::pair<clock::time_point, std::string>> finished; // oldest first

    void forget_old() {
        const auto limit = clock::now() - std::chrono::seconds(30);
        while (!finished.empty() && finished.front().first < limit) {
            const auto found = requests.find(finished.front().second);
            if (found != requests.end() && found->second.open == 0) {
                requests.erase(found);
            }
            finished.pop_front();
        }
    }
};
]])
edit(tools/server/server-queue.h
  [[#include "server-task.h"
]]
  [[#include "server-task.h"
#include "server-usage.h"
]])
edit(tools/server/server-queue.h
  [[struct server_response {
]]
  [[struct server_response {
    server_usage_book usage;

]])
edit(tools/server/server-queue.h
  [[    bool cancelled = false;
    int polling_interval_seconds;
]]
  [[    bool cancelled = false;
    int polling_interval_seconds;
    std::string usage_id; // under which to note what the tasks use
]])
edit(tools/server/server-queue.cpp
  [[    queue_results.add_waiting_task_ids(id_tasks);
]]
  [[    queue_results.usage.open(usage_id, id_tasks);
    queue_results.add_waiting_task_ids(id_tasks);
]])
edit(tools/server/server-context.cpp
  [[    void ok(const json & response_data) {
        status = 200;
]]
  [[    void set_usage_id(const server_http_req & req) {
        const auto id = req.headers.find("X-Usage-Id");
        rd.usage_id = id == req.headers.end() ? "" : id->second;
    }
    void ok(const json & response_data) {
        status = 200;
]])
edit(tools/server/server-context.cpp
  [[    res->set_req(&req); // will also set spipe if needed
]]
  [[    res->set_req(&req); // will also set spipe if needed
    res->set_usage_id(req);
]])
edit(tools/server/server-context.cpp
  [[    json responses = json::array();
    auto & rd = res->rd;
]]
  [[    json responses = json::array();
    res->set_usage_id(req);
    auto & rd = res->rd;
]])
edit(tools/server/server-context.cpp
  [[        json responses = json::array();
        auto & rd = res->rd;
]]
  [[        json responses = json::array();
        res->set_usage_id(req);
        auto & rd = res->rd;
]])
edit(tools/server/server-context.cpp
  [[            slot.callback_on_reset = [this](const server_slot & slot) {
]]
  [[            slot.callback_on_reset = [this](const server_slot & slot) {
                server_usage_book::counts used;
                if (!slot.task->is_child()) {
                    used.cached = slot.stats.n_prompt_cached;
                    used.prompt = slot.stats.n_prompt_cached + slot.stats.n_prompt_processed;
                }
                used.completion = slot.stats.n_gen;
                queue_results.usage.close(slot.task->id, used);
]])
edit(tools/server/server-context.cpp
  [[                        if (slot.task && slot.task->id == task.id_target) {
                            slot.release();
                            break;
                        }
                    }
]]
  [[                        if (slot.task && slot.task->id == task.id_target) {
                            slot.release();
                            break;
                        }
                    }
                    queue_results.usage.close(task.id_target, {}); // it may have had no slot yet
]])
edit(tools/server/server-context.cpp
  [[    this->get_slots = [this](const server_http_req & req) {
]]
  [[    this->get_usage = [this](const server_http_req & req) {
        auto res = create_response(true);
        const auto used = queue_results.usage.read(req.get_param("id"));
        res->ok({
            {"known",             used.known},
            {"open",              used.open},
            {"prompt_tokens",     used.prompt},
            {"cached_tokens",     used.cached},
            {"completion_tokens", used.completion},
        });
        return res;
    };

    this->get_slots = [this](const server_http_req & req) {
]])
edit(tools/server/server-context.h
  [[    server_http_context::handler_t get_slots;
]]
  [[    server_http_context::handler_t get_slots;
    server_http_context::handler_t get_usage;
]])
edit(tools/server/server.cpp
  [[    ctx_http.get ("/slots",                    ex_wrapper(routes.get_slots));
]]
  [[    ctx_http.get ("/slots",                    ex_wrapper(routes.get_slots));
    ctx_http.get ("/usage",                    ex_wrapper(routes.get_usage));
]])

# 3. Several answers in one, of OpenAI's routes: `usage` told the first one's.
edit(tools/server/server-context.cpp
  [[                json & choices = arr[0]["choices"];
                for (size_t i = 1; i < arr.size(); i++) {
]]
  [[                const auto * first = static_cast<server_task_result_cmpl_final*>(all_results.results[0].get());
                const size_t per_prompt = std::max(1, first->generation_params.n_cmpl);
                json & usage = arr[0]["usage"];
                const auto add = [](json & sum, const json & number) { sum = sum.get<int64_t>() + number.get<int64_t>(); };
                for (size_t i = 1; i < arr.size(); i++) {
                    const json & other = arr[i]["usage"];
                    add(usage["completion_tokens"], other["completion_tokens"]);
                    add(usage["total_tokens"], other["completion_tokens"]);
                    if (i % per_prompt == 0) {
                        add(usage["prompt_tokens"], other["prompt_tokens"]);
                        add(usage["total_tokens"], other["prompt_tokens"]);
                        add(usage["prompt_tokens_details"]["cached_tokens"], other["prompt_tokens_details"]["cached_tokens"]);
                    }
                }
                json & choices = arr[0]["choices"];
                for (size_t i = 1; i < arr.size(); i++) {
]])

# 4. The beginning of a stream.
#
# What must come first (an assistant's role, `response.created`, `message_start`) came with token number 1. That token
# makes no event when it is no whole character, as the first of many an emoji: then the first two never came, and the
# other came with every event.
edit(tools/server/server-task.h
  [[    bool oai_resp_created = false;
    const std::string oai_resp_id;
]]
  [[    bool begun            = false;
    bool oai_resp_created = false;
    const std::string oai_resp_id;
]])
edit(tools/server/server-task.h
  [[    bool is_progress = false;
    bool is_begin = false; //]]
  [[    bool is_progress = false;
    bool is_first = false; // of the events that tell of tokens
    bool is_begin = false; //]])
edit(tools/server/server-task.cpp
  [[    state.update_chat_msg(content, true, oaicompat_msg_diffs);
]]
  [[    is_first    = n_decoded > 0 && !state.begun;
    state.begun = n_decoded > 0 || state.begun;
    state.update_chat_msg(content, true, oaicompat_msg_diffs);
]])
edit(tools/server/server-task.cpp [[    bool first = n_decoded == 1;
]] [[    bool first = is_first;
]])
edit(tools/server/server-task.cpp [[    bool first = (n_decoded == 1);
]] [[    const bool first = is_first;
]])
edit(tools/server/server-task.cpp
  [[(is_progress || n_decoded == 1)]]
  [[(is_progress || n_decoded > 0)]])

# 5. AMX on Intel Xeons since Sapphire Rapids.
#
# GCC 12 believes that loading the tile configuration reads its first 8 bytes only, so it dropped the stores to the rows and
# columns of a local variable, and the next tile instruction was an illegal one. Of constant data nothing can be dropped.
# Upstream: https://github.com/ggml-org/llama.cpp/pull/26954, which does the same. Goes with it.
edit(ggml/src/ggml-cpu/amx/mmq.cpp
  [[    alignas(64) tile_config_t tc = {};
    tc.palette_id = 1;
    tc.start_row = 0;
    tc.rows[0] = 8;   tc.colsb[0] = 64;
    tc.rows[1] = 8;   tc.colsb[1] = 64;
    tc.rows[2] = 16;  tc.colsb[2] = 32;
    tc.rows[3] = 16;  tc.colsb[3] = 32;
    tc.rows[4] = 16;  tc.colsb[4] = 64;
    tc.rows[5] = 16;  tc.colsb[5] = 64;
    tc.rows[6] = 16;  tc.colsb[6] = 64;
    tc.rows[7] = 16;  tc.colsb[7] = 64;
]]
  [[    alignas(64) static const tile_config_t tc = {
        /* palette_id */ 1,
        /* start_row  */ 0,
        /* reserved_0 */ {0},
        /* colsb      */ {64, 64, 32, 32, 64, 64, 64, 64},
        /* rows       */ {8, 8, 16, 16, 16, 16, 16, 16},
    };
]])

# 6. Which of several CPU backends.
#
# ggml takes the best that CPUID names, also where the system has not enabled its instructions, and offers no way to take
# another after that one has crashed. With GGML_CPU_VARIANT=haswell it loads libggml-cpu-haswell.so and looks at no other.
# Upstream: https://github.com/ggml-org/llama.cpp/issues/28328. Goes when ggml lets its user choose the variant.
edit(ggml/src/ggml-backend-reg.cpp
  [[    int best_score = 0;
    fs::path best_path;
]]
  [[    const char * variant = strcmp(name, "cpu") == 0 ? std::getenv("GGML_CPU_VARIANT") : nullptr;
    int best_score = 0;
    fs::path best_path;
]])
edit(ggml/src/ggml-backend-reg.cpp
  [[                if (filename.native().find(file_prefix) == 0 && ext == file_extension) {
]]
  [[                if (filename.native().find(file_prefix) == 0 && ext == file_extension
                        && (variant == nullptr || path_str(filename.stem()) == path_str(file_prefix) + variant)) {
]])

# 7. No program but llama-server: a third of the build was for fifteen others that nobody installs or runs. Goes when
# llama.cpp can build its server without its other tools (LLAMA_BUILD_TOOLS takes all or none).
edit(tools/CMakeLists.txt
  [[    add_subdirectory(batched-bench)
    add_subdirectory(gguf-split)
    add_subdirectory(imatrix)
    add_subdirectory(llama-bench)
    add_subdirectory(completion)
    add_subdirectory(perplexity)
    add_subdirectory(quantize)
    if (LLAMA_BUILD_SERVER)
        add_subdirectory(ui)
        add_subdirectory(cli)
        add_subdirectory(server)
    endif()
    add_subdirectory(tokenize)
    add_subdirectory(tts)
    add_subdirectory(mtmd)
]]
  [[    add_subdirectory(mtmd)
    add_subdirectory(ui)
    add_subdirectory(server)
    return()
]])
edit(tools/mtmd/CMakeLists.txt
  [[if (LLAMA_BUILD_TOOLS)
    add_executable(llama-llava-cli ]]
  [[if (FALSE)
    add_executable(llama-llava-cli ]])

# 8. A shorter build.
#
# -O3 is for the kernels: what parses JSON and templates is as fast with -O2. And files that begin with the same long
# headers are compiled together, some at a time, as llama.cpp does with its models' graphs itself. Nothing upstream to wait
# for: it can go whenever it is in the way.
function(shorten_build)
  foreach(_target llama-common mtmd server-context llama-server-impl cpp-httplib)
    target_compile_options(${_target} PRIVATE $<$<CONFIG:Release>:-O2>)
  endforeach()
  compile_together(llama-common 8 "/json\\.cpp$") # it specialises templates that others have used by then
  compile_together(server-context 4 "")
  compile_together(mtmd 16 "/mtmd/[^/]*$") # all but the projectors' graphs: public and inner headers do not mix
endfunction()

function(compile_together target count apart)
  get_target_property(_sources ${target} SOURCES)
  get_target_property(_folder ${target} SOURCE_DIR)
  foreach(_file ${_sources})
    if(apart AND "${_folder}/${_file}" MATCHES "${apart}")
      set_source_files_properties("${_folder}/${_file}" TARGET_DIRECTORY ${target} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    endif()
  endforeach()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE ${count})
endfunction()
cmake_language(DEFER CALL shorten_build)

# 9. The cache of prompts, apart by scope.
#
# A prompt's beginning is reused from any slot, and from the cache in main memory, whoever has sent it: `cached_tokens` and
# the time to the first token tell one client how much of its guess another has sent. Prompts with another X-Cache-Scope now
# have no beginning in common: neither a slot nor the cache is chosen for it, and nothing of it is reused. GET /usage says
# `cache_scope`, so that the gateway knows. Upstream: https://github.com/ggml-org/llama.cpp/issues/27148 (the same cache
# gives one conversation another's content). Goes when llama-server can keep clients' prompts apart.
edit(tools/server/server-common.h
  [[struct server_tokens {
    bool has_mtmd = false;
]]
  [[struct server_tokens {
    bool has_mtmd = false;
    std::string scope; // whose prompt it is
]])
edit(tools/server/server-common.cpp
  [[size_t server_tokens::get_common_prefix(const server_tokens & b) const {
]]
  [[size_t server_tokens::get_common_prefix(const server_tokens & b) const {
    if (scope != b.scope) {
        return 0;
    }
]])
edit(tools/server/server-common.cpp
  [[    res.has_mtmd = has_mtmd;
    res.tokens   = tokens;
]]
  [[    res.has_mtmd = has_mtmd;
    res.scope    = scope;
    res.tokens   = tokens;
]])
edit(tools/server/server-context.cpp
  [[                                const bool can_cache_reuse =
]]
  [[                                const bool can_cache_reuse = slot.prompt.tokens.scope == input_tokens.scope &&
]])
edit(tools/server/server-context.cpp
  [[                        slot.prompt.tokens.keep_first(n_past);

]]
  [[                        slot.prompt.tokens.keep_first(n_past);
                        slot.prompt.tokens.scope = input_tokens.scope;

]])
edit(tools/server/server-context.cpp
  [[            task.tokens = std::move(inputs[i]);
            task.params = server_schema]]
  [[            task.tokens = std::move(inputs[i]);
            task.tokens.scope = cache_scope;
            task.params = server_schema]])
edit(tools/server/server-context.cpp
  [[        // process prompt
        std::vector<server_tokens> inputs;
]]
  [[        const auto scope_header = req.headers.find("X-Cache-Scope");
        const std::string cache_scope = scope_header == req.headers.end() ? "" : scope_header->second;

        // process prompt
        std::vector<server_tokens> inputs;
]])
edit(tools/server/server-context.cpp
  [[            {"completion_tokens", used.completion},
]]
  [[            {"completion_tokens", used.completion},
            {"cache_scope",       true},
]])

# 10. Ambiguous grammars.
#
# A grammar is followed in all ways at once, and `root ::= "a" root "b" | "a" root "c"` has twice as many with each
# token: 40 bytes of one client stop all slots and take memory without end. Now there is an error when there are more ways
# than any grammar of use has. Upstream: https://github.com/ggml-org/llama.cpp/issues/4218. Goes when llama.cpp bounds it.
edit(src/llama-grammar.cpp
  [[        const llama_grammar_stack & curr_stack = *curr_stack_it;

        if (curr_stack.empty()) {]]
  [[        const llama_grammar_stack & curr_stack = *curr_stack_it;

        if (seen.size() > 65536 || new_stacks.size() > 4096) {
            throw std::runtime_error("the grammar is too ambiguous");
        }

        if (curr_stack.empty()) {]])
edit(src/llama-grammar.cpp
  [[                    stacks_new.emplace_back(surviving_stack);
]]
  [[                    stacks_new.emplace_back(surviving_stack);
                    if (stacks_new.size() > 1024) {
                        throw std::runtime_error("the grammar is too ambiguous");
                    }
]])
