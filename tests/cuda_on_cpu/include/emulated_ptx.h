// What csrc/cuda/ptx.cuh has for nvcc.
#pragma once
#include <cmath>

namespace fastllie {
namespace {

inline float reciprocal(float v) { return 1 / v; }
inline float power_of_two(float v) { return v < -126 ? 0 : std::exp2(v); }
inline float at_least(float v, float low) { return v < low ? low : v; }
inline float at_most(float v, float high) { return v > high ? high : v; }

}  // namespace
}  // namespace fastllie
