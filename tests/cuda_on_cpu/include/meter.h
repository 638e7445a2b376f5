// What the emulator's own code says to its meter: accesses that the compiler does not see as a GPU makes
// them.
#pragma once
#include <cstddef>

namespace emulator {

// One of the thread that runs, at a place of the program: see meter.cpp.
void meter_access(const void* at_program, const void* address, size_t bytes, bool write);

}  // namespace emulator
