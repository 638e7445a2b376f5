// Between the entry point of the convolutions and their loops, which are compiled for each instruction set.
#pragma once
#include "cpu/isa.h"
#include "cpu/views.h"

namespace fastllie {

// Output channels whose packed weights lie side by side, on every machine: two vectors of AVX-512.
constexpr int64_t OUTPUT_BLOCK = 32;
// Rows of a product that are computed together divide this: tiles and pixels are rounded up to it.
constexpr int64_t ROW_BLOCK = 12;
// Input channels whose tiles are transformed together: those of a block stay in the second cache.
constexpr int64_t WINOGRAD_CHANNELS = 64;

// The image is cut into blocks of rows and columns of outputs, the output channels into groups: a unit of
// work is one group in one block.
struct ConvolutionTask {
  const Convolution& convolution;
  int64_t inputs;   // channels of all sources
  int64_t outputs;  // channels
  Sizes sizes;      // of the output
  int64_t rows, columns, bands, strips;
  int64_t groups, group_outputs;

  int64_t units() const { return sizes[0] * bands * strips * groups; }
};

// Does units `from` to `to` of the task.
using ConvolutionLoop = void (*)(const ConvolutionTask& task, int64_t from, int64_t to);

// At least so many bytes that belong to this thread until it asks again, aligned to a line of the cache.
void* scratch(int64_t bytes);

FASTLLIE_DECLARE_BF16(ConvolutionLoop convolution_loop(Dtype out))

// Pairs of values that a tile holds of a pixel: the most of at most 16 that all pairs of a kernel's row
// divide into.
constexpr int64_t tile_pairs(int64_t all) {
  int64_t pairs = all < 16 ? all : 16;
  while (all % pairs) --pairs;
  return pairs;
}

#if defined(FASTLLIE_KNOWS_TILES)
namespace amx {
ConvolutionLoop convolution_tiles_loop(Dtype out);
}
#endif

}  // namespace fastllie
