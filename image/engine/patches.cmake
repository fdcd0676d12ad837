# Included by CMake right after the engine's project() (build.py passes -DCMAKE_PROJECT_llama_cpp_INCLUDE): what we change
# in llama-server before it is compiled. Each edit names the text it expects, and a text that is not there stops the
# build: then look whether the newer llama.cpp still needs the edit.
#
# llama-server looks whether a client is still there only when no result for ANYBODY has come for a whole second, because
# each result wakes all who wait and each starts its second anew. So while one client streams, another who leaves a plain
# request, or a prompt that is being read, keeps its slot to the end; and who leaves a batch of short embeddings is never
# missed. With one deadline for the whole wait, and a look between the results of a batch, it notices within 200 ms.
set(_file "${CMAKE_SOURCE_DIR}/vendor/llama.cpp/tools/server/server-queue.cpp")
file(READ "${_file}" _text)

function(edit before after)
  string(FIND "${_text}" "${after}" _done)
  if(_done EQUAL -1)
    string(FIND "${_text}" "${before}" _found)
    if(_found EQUAL -1)
      message(FATAL_ERROR "image/engine/patches.cmake: ${_file} does not hold what it changes:\n${before}")
    endif()
    string(REPLACE "${before}" "${after}" _text "${_text}")
    set(_text "${_text}" PARENT_SCOPE)
  endif()
endfunction()

edit(
  [[recv_with_timeout(const std::unordered_set<int> & id_tasks, int timeout) {
]]
  [[recv_with_timeout(const std::unordered_set<int> & id_tasks, int timeout) {
    const auto give_up_at = std::chrono::steady_clock::now() + std::chrono::milliseconds(200 * timeout);
]])
edit(
  [[condition_results.wait_for(lock, std::chrono::seconds(timeout))]]
  [[condition_results.wait_until(lock, give_up_at)]])
edit(
  [[auto res = next(should_stop);]]
  [[auto res = should_stop() ? nullptr : next(should_stop);]])

file(WRITE "${_file}" "${_text}")
