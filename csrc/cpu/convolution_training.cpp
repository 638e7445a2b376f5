#include <algorithm>

#include "cpu/convolution_training_task.h"
#include "cpu/parallel.h"

namespace fastllie {
namespace {

// Tiles that are summed up in registers, one after the other: their factors stay in the caches
constexpr int64_t TILES_TOGETHER = 192;
constexpr int64_t TILES_ACROSS = 12;  // of a segment
constexpr int64_t TILE = 4;
constexpr int64_t LINE = 16;  // floats

// All but where the factors and products lie.
KernelGradientTask cut(const KernelGradient& gradient) {
  const auto& [batch, outputs, height, width] = gradient.grad_sizes;
  KernelGradientTask task{gradient, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, nullptr, nullptr, nullptr};
  const int64_t tiles = parts(width, TILE);
  task.strips = parts(tiles, TILES_ACROSS);
  task.across = parts(tiles, task.strips);
  task.down = parts(height, TILE);
  task.segments = std::min(parts(TILES_TOGETHER, task.across), batch * task.down * task.strips);
  task.tiles = task.segments * task.across;
  task.inputs = rounded_up(gradient.x_sizes[1], INPUT_BLOCK);
  task.outputs = rounded_up(outputs, OUTPUT_BLOCK);
  // a line more, or the points of a tile would fall on the same lines of the first cache
  task.x_pitch = task.tiles * task.inputs + LINE;
  task.grad_pitch = task.tiles * task.outputs + LINE;
  return task;
}

}  // namespace

void convolution_pack_cpu(const KernelPacking& packing, int threads) {
  const int64_t blocks = parts(packing.outputs, OUTPUT_BLOCK) * parts(packing.inputs, INPUT_BLOCK);
  const KernelPackingLoop loop = FASTLLIE_CHOOSE(kernel_packing_loop)();
  parallel(blocks, worthwhile(threads, WINOGRAD4_POINTS * packing.outputs * packing.inputs),
           [&](int64_t from, int64_t to) { loop(packing, from, to); });
}

int64_t convolution_gradient_floats_cpu(const KernelGradient& gradient) {
  const KernelGradientTask task = cut(gradient);
  return WINOGRAD4_POINTS * (task.x_pitch + task.grad_pitch + task.inputs * task.outputs) + LINE;
}

void convolution_gradient_cpu(const KernelGradient& gradient, float* workspace, int threads) {
  KernelGradientTask task = cut(gradient);
  const KernelGradientLoops loops = FASTLLIE_CHOOSE(kernel_gradient_loops)();
  const uintptr_t line = LINE * sizeof(float);
  task.products = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(workspace) + line - 1) / line * line);
  task.x = task.products + WINOGRAD4_POINTS * task.inputs * task.outputs;
  task.grad = task.x + WINOGRAD4_POINTS * task.x_pitch;
  const int64_t all = gradient.grad_sizes[0] * task.down * task.strips, together = task.segments;
  const auto run = [&](KernelGradientLoop loop, int64_t units) {
    parallel(units, threads, [&](int64_t from, int64_t to) { loop(task, from, to); });
  };
  for (; task.first < all; task.first += together) {
    task.segments = std::min(together, all - task.first);
    task.tiles = task.segments * task.across;
    run(loops.transform, task.segments);
    run(task.first ? loops.add : loops.begin, WINOGRAD4_POINTS * task.output_blocks());
  }
  run(loops.finish, task.input_blocks() * task.output_blocks());
}

}  // namespace fastllie
