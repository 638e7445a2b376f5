#include "cpu/curve_task.h"

#include "cpu/parallel.h"

namespace fastllie {
namespace {

void execute(CurveTask task, const Curve& curve, bool backward, int threads) {
  task.sizes = curve.sizes;
  task.steps = curve.steps;
  auto& [batch, channels, height, width] = task.sizes;
  const int64_t maps = channels * (curve.shared ? 1 : curve.steps);
  const int64_t image = batch * channels * height * width, all_maps = batch * maps * height * width;
  View* const views[] = {&task.grad, &task.x, &task.alpha, &task.out, &task.grad_alpha};

  bool adjoin = true;
  task.contiguous = true;
  task.direct = task.x.dtype == task.alpha.dtype && bytes_of(task.x.dtype) >= 4;
  for (const View* v : views) {
    adjoin = adjoin && rows_adjoin(*v, width);
    task.contiguous = task.contiguous && unit(*v);
  }
  task.direct = task.direct && task.contiguous;
  if (adjoin) {
    width *= height;
    height = 1;
    for (View* v : views) v->strides[2] = 0;
  }
  task.stream_out = task.contiguous && can_stream(task.out, image);
  task.stream_grad_alpha = task.contiguous && can_stream(task.grad_alpha, all_maps);
  expect_whole_pages(task.out, image);
  expect_whole_pages(task.grad_alpha, all_maps);

  const CurveLoop loop =
      FASTLLIE_CHOOSE(curve_loop)(task.x.dtype == Dtype::f64, curve.shared, curve.tanh, backward);
  parallel(units_of(task.sizes, task.contiguous), worthwhile(threads, all_maps),
           [&](int64_t from, int64_t to) { loop(task, from, to); });
}

}  // namespace

void curve_forward_cpu(const View& x, const View& alpha, const View& out, const Curve& curve, int threads) {
  const View none{nullptr, x.dtype, {}};
  const View no_maps{nullptr, alpha.dtype, {}};
  execute({none, x, alpha, out, no_maps, {}, 0, false, false, false, false}, curve, false, threads);
}

void curve_backward_cpu(const View& grad, const View& x, const View& alpha, const View& grad_x,
                        const View& grad_alpha, const Curve& curve, int threads) {
  execute({grad, x, alpha, grad_x, grad_alpha, {}, 0, false, false, false, false}, curve, true, threads);
}

}  // namespace fastllie
