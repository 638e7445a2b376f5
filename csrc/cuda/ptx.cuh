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

// The larger and the smaller of two; a NaN in v stays one
__device__ __forceinline__ float at_least(float v, float low) {
#if __CUDA_ARCH__ >= 800
  float to;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(to) : "f"(v), "f"(low));
  return to;
#else
  return v < low ? low : v;
#endif
}
__device__ __forceinline__ float at_most(float v, float high) {
#if __CUDA_ARCH__ >= 800
  float to;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(to) : "f"(v), "f"(high));
  return to;
#else
  return v > high ? high : v;
#endif
}

}  // namespace
}  // namespace fastllie
#else
// of the emulator that the tests run the kernels in
#include <emulated_ptx.h>
#endif
