// What csrc/cuda/ptx.cuh has for nvcc.
#pragma once

namespace fastllie {
namespace {

inline float reciprocal(float v) { return 1 / v; }

}  // namespace
}  // namespace fastllie
