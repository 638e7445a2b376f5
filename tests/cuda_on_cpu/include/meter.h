// What the emulator's own code says to its meter: accesses that the compiler does not see as a GPU makes
// them.
#pragma once
#include <cstddef>

namespace emulator {

// One of the thread that runs, at a place of the program: see meter.cpp.
void meter_access(const void* at_program, const void* address, size_t bytes, bool write);

// d = a b + c, of 16 x 16 each, of which every lane of a warp has the eight elements from 8 * lane on.
void multiply(const float* a, const float* b, const float* c, float* d);

// While one lives, accesses of the thread that runs do not count.
class Unmetered {
 public:
  Unmetered();
  ~Unmetered();
};

}  // namespace emulator
