// Single instructions that CUDA has no function for.
#pragma once
#include <cuda_fp16.h>

#include <type_traits>

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

// Their product, which the compiler leaves to be added where it is used: one instruction a pointer, where it
// would make two, and a register more, of a sum from turn to turn of a loop
__device__ __forceinline__ int64_t wide_product(int a, int b) {
  int64_t to;
  asm("mul.wide.s32 %0, %1, %2;" : "=l"(to) : "r"(a), "r"(b));
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

// Four matrices of 8 x 8 in shared memory, each lane giving the address of 16 bytes: lane l that of row l % 8
// of matrix l / 8. Of each a lane gets two elements that adjoin, 2 (l % 4) and the next of row l / 4.
__device__ __forceinline__ void load_matrices(unsigned (&to)[4], const void* row) {
#if __CUDA_ARCH__ >= 800
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
#endif
}

// sums += left right, of 16 x 16 and 16 x 8. With g = l / 4 and t = l % 4 lane l has rows g and g + 8 of the
// left and of the sums, and column g of the right: inputs 2 t, 2 t + 1 and those plus 8; columns 2 t, 2 t
// + 1.
template <class F>
__device__ __forceinline__ void multiply_matrices(float (&sums)[4], const unsigned (&left)[4],
                                                  unsigned right0, unsigned right1) {
#if __CUDA_ARCH__ >= 800
#define FASTLLIE_MULTIPLY(type)                                              \
  asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                 \
      ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])           \
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right0), "r"(right1))
  if constexpr (std::is_same_v<F, __half>)
    FASTLLIE_MULTIPLY("f16");
  else
    FASTLLIE_MULTIPLY("bf16");
#undef FASTLLIE_MULTIPLY
#endif
}

}  // namespace
}  // namespace fastllie
#else
// of the emulator that the tests run the kernels in
#include <emulated_ptx.h>
#endif
