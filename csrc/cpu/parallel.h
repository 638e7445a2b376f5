// Threads for the kernels: they wait between calls, take part in one call at a time, and survive a fork().
#pragma once
#include <cstdint>
#include <functional>

namespace fastllie {

// Calls body(from, to) for consecutive parts of [0, units) on up to `threads` threads, this one among them,
// and returns when all are done. Parts are taken as threads get to them: one that wakes late does less.
void parallel(int64_t units, int threads, const std::function<void(int64_t, int64_t)>& body);

}  // namespace fastllie
