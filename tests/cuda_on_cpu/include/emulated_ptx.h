// What csrc/cuda/ptx.cuh has for nvcc.
#pragma once
#include <cmath>

namespace fastllie {
namespace {

inline float reciprocal(float v) { return 1 / v; }
inline float power_of_two(float v) { return v < -126 ? 0 : std::exp2(v); }

}  // namespace
}  // namespace fastllie
