// Single instructions that CUDA has no function for.
#pragma once

#if defined(__NVCC__)
namespace fastllie {
namespace {

// 1 / v to the last bit but one, for what is neither subnormal nor above 2^126
__device__ __forceinline__ float reciprocal(float v) {
  float to;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(to) : "f"(v));
  return to;
}

// 2^v within two units of its last place; 0 below 2^-126
__device__ __forceinline__ float power_of_two(float v) {
  float to;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(to) : "f"(v));
  return to;
}

}  // namespace
}  // namespace fastllie
#else
// of the emulator that the tests run the kernels in
#include <emulated_ptx.h>
#endif
