// Between the entry points of what trains convolutions and their loops, which are compiled for each
// instruction set.
#pragma once
#include "cpu/convolution_task.h"

namespace fastllie {

// Input channels that lie side by side where kernels are packed or summed up.
constexpr int64_t INPUT_BLOCK = 16;
constexpr int64_t WINOGRAD4_POINTS = 36;

// Tiles of 4 x 4 outputs, `across` of them a segment, some segments at a time. Their factors lie by points,
// then blocks of channels, then tiles; the products by points, blocks of outputs, inputs.
struct KernelGradientTask {
  const KernelGradient& gradient;
  int64_t across, down, strips;    // tiles of a segment; rows of tiles; segments of a row
  int64_t first, segments, tiles;  // those at hand
  int64_t inputs, outputs;         // rounded up to blocks
  int64_t x_pitch, grad_pitch;     // from point to point
  float *x, *grad, *products;

  int64_t input_blocks() const { return inputs / INPUT_BLOCK; }
  int64_t output_blocks() const { return outputs / OUTPUT_BLOCK; }
};

// Units `from` to `to`: blocks of packed kernels; segments of factors; points' blocks of outputs, whose
// products are added to what is there or begin; blocks of kernels' gradients.
using KernelPackingLoop = void (*)(const KernelPacking& packing, int64_t from, int64_t to);
using KernelGradientLoop = void (*)(const KernelGradientTask& task, int64_t from, int64_t to);

struct KernelGradientLoops {
  KernelGradientLoop transform, begin, add, finish;
};

FASTLLIE_DECLARE(KernelPackingLoop kernel_packing_loop())
FASTLLIE_DECLARE(KernelGradientLoops kernel_gradient_loops())

}  // namespace fastllie
