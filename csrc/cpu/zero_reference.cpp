#include "zero_reference.h"

#include "cpu/parallel.h"
#include "cpu/zero_reference_task.h"

namespace fastllie {
namespace {

int64_t maps_of(const Curve& curve) { return curve.sizes[1] * (curve.shared ? 1 : curve.steps); }

void execute(bool backward, const ZeroReferenceTask& task, int threads) {
  const Sizes& sizes = task.curve.sizes;
  const ZeroReferenceLoop loop = FASTLLIE_CHOOSE(zero_reference_loop)(backward, task);
  const int64_t work = sizes[0] * maps_of(task.curve) * sizes[2] * sizes[3];
  parallel(zero_reference_blocks_cpu(sizes), worthwhile(threads, work),
           [&](int64_t from, int64_t to) { loop(task, from, to); });
}

// Channels side by side are written with those of the next pixels, so that their own stride does not matter.
bool can_stream_rows(View v, int64_t channels, int64_t elements) {
  if (v.strides[1] == 1 && v.strides[3] == channels) v.strides[1] = 0;
  return can_stream(v, elements);
}

}  // namespace

int64_t zero_reference_blocks_cpu(const Sizes& sizes) {
  const int64_t down = (sizes[2] + STRIP_ROWS - 1) / STRIP_ROWS;
  return sizes[0] * down * ((sizes[3] + STRIP_COLUMNS - 1) / STRIP_COLUMNS);
}

void zero_reference_forward_cpu(const View& x, const View& alpha, void* cells, void* patches, double* parts,
                                const Curve& curve, int threads) {
  ZeroReferenceTask task{};
  task.curve = curve;
  task.x = x;
  task.alpha = alpha;
  task.cells = cells;
  task.patches = patches;
  task.parts = parts;
  execute(false, task, threads);
}

void zero_reference_backward_cpu(const View& x, const View& alpha, const void* slopes, const void* channels,
                                 const double* grad, const View& grad_x, const View& grad_alpha,
                                 const Curve& curve, int threads) {
  ZeroReferenceTask task{};
  task.curve = curve;
  task.x = x;
  task.alpha = alpha;
  task.grad_x = grad_x;
  task.grad_alpha = grad_alpha;
  const int64_t pixels = curve.sizes[0] * curve.sizes[2] * curve.sizes[3], maps = maps_of(curve);
  task.stream_x = can_stream_rows(grad_x, 3, pixels * 3);
  task.stream_alpha = can_stream_rows(grad_alpha, maps, pixels * maps);
  expect_whole_pages(grad_x, pixels * 3);
  expect_whole_pages(grad_alpha, pixels * maps);
  task.slopes = slopes;
  task.channels = channels;
  const VariationFactors factors = variation_factors(curve.sizes.data(), *grad);
  task.vertical = factors.vertical;
  task.horizontal = factors.horizontal;
  execute(true, task, threads);
}

}  // namespace fastllie
