// The arithmetic of SCI's enhancement network beside its convolutions, shared by the C++ and CUDA kernels; T
// as in inline.h.
#pragma once
#include <cstdint>

#include "illumination.h"

namespace fastllie {

// Three convolutions of 3 x 3 with three channels each: layer, output, input, row, column.
constexpr int SCI_LAYERS = 3, SCI_CHANNELS = 3, SCI_TAPS = 9;
constexpr int SCI_WEIGHTS = SCI_CHANNELS * SCI_CHANNELS * SCI_TAPS;  // of a layer
constexpr int SCI_HALO = SCI_LAYERS;  // pixels around an output that it depends on

// clamp(x / illum, 0, 1) with illum = clamp(sigmoid(z) + x, 1e-4, 1), from decay = e^-z, finite, in one
// division: with d = 1 + decay, illum is (1 + x d) / d before its clamp, whose bounds times d stand in for
// it. Bounds::at_least(v, low) and at_most(v, high) keep a NaN in v.
template <class Bounds, class T>
FASTLLIE_INLINE T sci_quotient(T x, T decay, T one) {
  const T d = one + decay, product = x * d;
  const T illum = Bounds::at_most(Bounds::at_least(one + product, illum_min(one) * d), d);
  return Bounds::at_most(Bounds::at_least(product / illum, one - one), one);
}

// The row or column that stands in for `at`, which lies at most one outside [0, size): its mirror image, or
// the edge itself where there is nothing to mirror.
FASTLLIE_INLINE int64_t mirrored(int64_t at, int64_t size) {
  if (at < 0) return size > 1 ? 1 : 0;
  if (at >= size) return size > 1 ? size - 2 : 0;
  return at;
}

}  // namespace fastllie
