// Asynchronous copies: they arrive no earlier than somebody waits for them.
#pragma once
#include "cuda_runtime.h"

inline void __pipeline_memcpy_async(void* to, const void* from, size_t bytes, size_t zeros = 0) {
  emulator::copy_async(to, from, bytes, zeros);
}
inline void __pipeline_commit() { emulator::commit_copies(); }
inline void __pipeline_wait_prior(size_t groups) { emulator::wait_for_copies(groups); }
