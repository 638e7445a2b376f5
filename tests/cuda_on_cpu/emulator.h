// What emulator.cpp and meter.cpp know of each other.
#pragma once
#include <cstdint>
#include <string>

#include "include/cuda_runtime.h"
#include "include/meter.h"

namespace emulator {

constexpr unsigned WARP = 32, MOST_THREADS = 1024;

// The thread that runs, and how often its block and its warp have met: what lies between two meetings is not
// ordered.
struct Moment {
  uint64_t block;
  unsigned thread, barriers, warp_meetings;
};
Moment now();

enum class Space { own, shared, global };  // own: the thread's registers, arguments, constants
Space space_of(const void* address);

struct Totals {
  unsigned barriers = 0;
  size_t static_shared = 0;
};

void meter_begin_block();
void meter_end_block();
// JSON of a launch, the figures of the meter included where it is on.
std::string meter_report(const char* kernel, const Configuration&, const Totals&);

}  // namespace emulator
