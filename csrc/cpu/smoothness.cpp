#include "smoothness.h"

#include "cpu/parallel.h"
#include "cpu/smoothness_task.h"

namespace fastllie {
namespace {

void execute(bool backward, const SmoothnessTask& task, int threads) {
  const Sizes& sizes = task.settings.sizes;
  const SmoothnessLoop loop = FASTLLIE_CHOOSE(smoothness_loop)(backward, task);
  // a pair costs about as much as an element that is read and written
  const int64_t work = sizes[0] * sizes[2] * sizes[3] * OFFSETS;
  parallel(tiles_of(sizes), worthwhile(threads, work),
           [&](int64_t from, int64_t to) { loop(task, from, to); });
}

}  // namespace

int64_t tiles_of(const Sizes& sizes) {
  return sizes[0] * ((sizes[2] + TILE_ROWS - 1) / TILE_ROWS) * ((sizes[3] + TILE_COLUMNS - 1) / TILE_COLUMNS);
}

int64_t smoothness_blocks_cpu(const Sizes& sizes) { return tiles_of(sizes); }

void smoothness_forward_cpu(const View& illum, const View& guide, double* parts, const Smoothness& settings,
                            int threads) {
  SmoothnessTask task{settings, illum, guide, {}, {}, false, false, parts, {}, {}};
  execute(false, task, threads);
}

void smoothness_backward_cpu(const View& illum, const View& guide, const View& grad_illum,
                             const View& grad_guide, const double* grad, const double* means,
                             const Smoothness& settings, int threads) {
  SmoothnessTask task{settings, illum, guide, grad_illum, grad_guide, false, false, nullptr, {}, {}};
  const Sizes& sizes = settings.sizes;
  const int64_t elements = sizes[0] * sizes[1] * sizes[2] * sizes[3];
  task.stream_illum = can_stream(grad_illum, elements);
  task.stream_guide = can_stream(grad_guide, elements);
  expect_whole_pages(grad_illum, elements);
  expect_whole_pages(grad_guide, elements);
  for (int d = 0; d < OFFSETS; ++d) {
    const double factor = 2 * *grad / double(pairs_of(sizes.data(), d));
    task.illum_factors[d] = settings.scalar ? factor * means[d] / 3 : factor;
    task.guide_factors[d] = settings.scalar ? factor * means[OFFSETS + d] : factor;
  }
  execute(true, task, threads);
}

void smoothness_colours_cpu(const View& grad_colours, const View& grad_guide, int64_t triples, int threads) {
  const MemoryOrderLoop loop = FASTLLIE_CHOOSE(memory_order_loop)(grad_colours.dtype == Dtype::f64);
  const int64_t units = (triples + MEMORY_ORDER_TRIPLES - 1) / MEMORY_ORDER_TRIPLES;
  parallel(units, worthwhile(threads, triples * 6),
           [&](int64_t from, int64_t to) { loop(grad_colours, grad_guide, triples * 3, from, to); });
}

}  // namespace fastllie
