#include <algorithm>
#include <memory>
#include <new>
#include <tuple>
#include <utility>

#include "cpu/convolution_task.h"
#include "cpu/parallel.h"

namespace fastllie {
namespace {

// Outputs of a block: what the weights are read for. Fewer tiles are up to 30 % slower with 256 channels.
constexpr int64_t DIRECT_ROWS = 8, DIRECT_COLUMNS = 48;
constexpr int64_t TILES_ACROSS = 12, TILES_DOWN = 8;
// Of a block by tiles of bfloat16: whole steps of pixels, and bytes of inputs, which stay in the second cache
constexpr int64_t STEP_COLUMNS = 64, STEP_ROWS = 16, STEP_BYTES = 512 << 10;
// Units a thread: where the blocks are fewer, they are cut by output channels
constexpr int64_t UNITS_PER_THREAD = 4;

// Equal parts of a side, none longer than `most`, each a multiple of `step`.
int64_t even(int64_t side, int64_t most, int64_t step) {
  return parts(parts(side, parts(side, most)), step) * step;
}

// Side of a tile of outputs, 0 of a direct convolution.
int64_t tile_of(Arithmetic arithmetic) {
  switch (arithmetic) {
    case Arithmetic::winograd2:
    case Arithmetic::winograd2_pairs:
      return 2;
    case Arithmetic::winograd4:
    case Arithmetic::winograd4_pairs:
      return 4;
    default:
      return 0;
  }
}

// Rows and columns of a block, of no more than the output has.
std::pair<int64_t, int64_t> block_of(const Convolution& convolution, int64_t inputs) {
  const int64_t height = convolution.sizes[2], width = convolution.sizes[3];
  if (convolution.arithmetic == Arithmetic::tiles) {
    const int64_t columns = even(width, STEP_COLUMNS, 16);
    const int64_t row = (columns + 2) * inputs * int64_t(sizeof(uint16_t));
    return {even(height, std::clamp<int64_t>(STEP_BYTES / row - 2, 4, STEP_ROWS), 1), columns};
  }
  const int64_t tile = tile_of(convolution.arithmetic);
  if (!tile) {
    const int64_t columns = even(width, DIRECT_COLUMNS, 1);
    return {even(height, DIRECT_ROWS * DIRECT_COLUMNS / columns, 1), columns};
  }
  const int64_t columns = even(width, TILES_ACROSS * tile, tile);
  return {even(height, TILES_ACROSS * TILES_DOWN * tile * tile / columns / tile * tile, tile), columns};
}

// C++17's own way to aligned memory: Windows has no std::aligned_alloc, nor has macOS before 10.15.
constexpr std::align_val_t LINE{64};

struct Free {
  void operator()(void* memory) const { ::operator delete(memory, LINE); }
};

ConvolutionLoop loop_of(const Convolution& convolution) {
#if defined(FASTLLIE_KNOWS_TILES)
  if (convolution.arithmetic == Arithmetic::tiles) return amx::convolution_tiles_loop(convolution.out.dtype);
#endif
  return FASTLLIE_CHOOSE_BF16(convolution_loop)(convolution.out.dtype);
}

}  // namespace

void* scratch(int64_t bytes) {
  static thread_local std::unique_ptr<void, Free> memory;
  static thread_local int64_t size = 0;
  if (bytes > size) {
    memory.reset();
    size = 0;
    memory.reset(::operator new(size_t(bytes), LINE));
    size = bytes;
  }
  return memory.get();
}

void convolution_forward_cpu(const Convolution& convolution, int threads) {
  const auto& [batch, outputs, height, width] = convolution.sizes;
  ConvolutionTask task{convolution, 0, outputs, convolution.sizes, 0, 0, 0, 0, 1, outputs};
  for (int64_t i = 0; i < convolution.count; ++i) task.inputs += convolution.sources[i].channels;
  std::tie(task.rows, task.columns) = block_of(convolution, task.inputs);
  task.strips = parts(width, task.columns);
  task.bands = parts(height, task.rows);
  const int64_t blocks = batch * task.strips * task.bands;
  const int64_t groups = std::min(parts(threads * UNITS_PER_THREAD, blocks), parts(outputs, OUTPUT_BLOCK));
  task.group_outputs = threads > 1 ? even(outputs, parts(outputs, groups), OUTPUT_BLOCK) : outputs;
  task.groups = parts(outputs, task.group_outputs);
  const ConvolutionLoop loop = loop_of(convolution);
  parallel(task.units(), threads, [&](int64_t from, int64_t to) { loop(task, from, to); });
}

}  // namespace fastllie
