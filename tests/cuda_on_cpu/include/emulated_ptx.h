// What csrc/cuda/ptx.cuh has for nvcc.
#pragma once
#include "cuda_bf16.h"
#include "cuda_fp16.h"

namespace fastllie {
namespace {

inline float reciprocal(float v) { return 1 / v; }
inline float power_of_two(float v) { return v < -126 ? 0 : std::exp2(v); }
inline int64_t wide_product(int a, int b) { return int64_t{a} * b; }
inline float at_least(float v, float low) { return v < low ? low : v; }
inline float at_most(float v, float high) { return v > high ? high : v; }

using emulator::load_matrices;

inline float widened(__half v) { return __half2float(v); }
inline float widened(__nv_bfloat16 v) { return __bfloat162float(v); }

template <class F, int REGISTERS>
void unpack(const unsigned (&from)[REGISTERS], float (&to)[REGISTERS][2]) {
  F pairs[REGISTERS][2];
  std::memcpy(pairs, from, sizeof pairs);
  for (int i = 0; i < REGISTERS; ++i)
    for (int e = 0; e < 2; ++e) to[i][e] = widened(pairs[i][e]);
}

template <class F>
void multiply_matrices(float (&sums)[4], const unsigned (&left)[4], unsigned right0, unsigned right1) {
  const unsigned right[2] = {right0, right1};
  float lefts[4][2], rights[2][2];
  unpack<F>(left, lefts);
  unpack<F>(right, rights);
  emulator::multiply_matrices(sums, lefts, rights);
}

}  // namespace
}  // namespace fastllie
