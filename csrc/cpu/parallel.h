// Threads for the kernels: torch's where it runs on GNU OpenMP, else our own, which wait between calls and
// take part in one call at a time. A forked process goes on with its own.
#pragma once
#include <cstdint>
#include <functional>

namespace fastllie {

// Calls body(from, to) for consecutive parts of [0, units) on up to `threads` threads, this one among them,
// and returns when all are done. Parts are taken as threads get to them: one that wakes late does less.
void parallel(int64_t units, int threads, const std::function<void(int64_t, int64_t)>& body);

}  // namespace fastllie
