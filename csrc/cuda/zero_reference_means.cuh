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

}  // namespace
}  // namespace fastllie
