// Threads for one call. None outlive it: a pool would not survive fork(), and DataLoader workers fork.
#pragma once
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace fastllie {

// Calls body(from, to) on up to `threads` threads, which share [0, units) in runs of equal length.
template <class Body>
void parallel(int64_t units, int threads, const Body& body) {
  const int64_t parts = threads < units ? threads : units;
  std::vector<std::thread> others;
  others.reserve(parts);
  for (int64_t i = 1; i < parts; ++i) {
    const auto part = [&body, from = units * i / parts, to = units * (i + 1) / parts] { body(from, to); };
    try {
      others.emplace_back(part);
    } catch (const std::system_error&) {
      part();  // the system has no thread left: the work is done all the same
    }
  }
  if (units > 0) body(0, units / (parts > 0 ? parts : 1));
  for (std::thread& other : others) other.join();
}

}  // namespace fastllie
