// The zero-reference losses of the means that the pass over the pixels leaves, and their slopes: all that is
// not of the size of an image.
#pragma once
#include "access.cuh"
#include "zero_reference.h"

namespace fastllie {

struct MeansTask {
  int64_t batch, units;  // images, and parts of each
  int cells_down, cells_across, patches, pieces;
  double level;
  double pixels, vertical, horizontal;  // of an image, and its pairs
  const void *cells, *means_of_patches;
  const double* parts;
  double *sums, *means;
  void* losses;
};

// Two launches. All but the parts, sums and means is float64 or float32.
void zero_reference_means(const MeansTask& task, bool float64, cudaStream_t stream);

namespace {

constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffff;
// Of the enhanced image's channels, then of the maps' squared vertical and horizontal differences
constexpr int PARTS = 5;
// Those of a piece of an image, and what its cells and patches add to their losses
constexpr int SUMS = 7;
// Cells of a thread where there are many, and the most pieces of an image
constexpr int EACH = 16, MOST_PIECES = 64;

template <class T>
__device__ __forceinline__ T sum_of_lanes(T value, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) value += __shfl_xor_sync(ALL, value, step);
  return value;
}

// Half of what the sum of the spatial loss grows by with a cell; see steps_of
template <class T>
__device__ __forceinline__ T slope_of_steps(const T* cells, int down, int across, int i, int j) {
  const T* const from = cells + i * int64_t{across} + j;
  const T middle = *from;
  const auto step = [&](bool there, int64_t to) { return there ? 2 * (middle - from[to]) : middle; };
  return step(i > 0, -across) + step(i < down - 1, across) + step(j > 0, -1) + step(j < across - 1, 1);
}

// Half of what the root of the sum of the fourth powers of the means' differences grows by with a channel;
// zero where they are all equal.
template <class T>
__device__ __forceinline__ T slope_of_colour(const double* means, int c) {
  const T one = T(means[c] - means[(c + 1) % 3]), two = T(means[c] - means[(c + 2) % 3]), rest = two - one;
  T largest = one * one > two * two ? one : two;
  largest = rest * rest > largest * largest ? rest : largest;
  if (largest == 0) return T(0);
  // as shares of the largest, of whose powers T may not be able to hold any
  const T a = one / largest, b = two / largest, d = rest / largest;
  return largest * (a * a * a + b * b * b) / sqrt(a * a * a * a + b * b * b * b + d * d * d * d);
}

}  // namespace
}  // namespace fastllie
