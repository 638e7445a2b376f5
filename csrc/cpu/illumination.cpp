#include "cpu/illumination_task.h"
#include "cpu/parallel.h"

namespace fastllie {
namespace {

// `views` holds `inputs` inputs, then the outputs, of which a null one is not wanted.
void execute(Illumination op, std::initializer_list<View> views, int inputs, Sizes sizes, int threads) {
  IlluminationTask task{};
  const int64_t elements = sizes[0] * sizes[1] * sizes[2] * sizes[3];
  bool adjoin = true;
  task.contiguous = true;
  for (const View& v : views) {
    task.views[task.count++] = v;
    adjoin = adjoin && rows_adjoin(v, sizes[3]);
    task.contiguous = task.contiguous && unit(v);
  }
  task.direct = task.contiguous && bytes_of(task.views[0].dtype) >= 4;
  if (adjoin) {
    sizes = {sizes[0], sizes[1], 1, sizes[2] * sizes[3]};
    for (View& v : task.views) v.strides[2] = 0;
  }
  task.sizes = sizes;
  for (int i = inputs; i < task.count; ++i) {
    task.stream[i] = task.contiguous && can_stream(task.views[i], elements);
    expect_whole_pages(task.views[i], elements);
  }
  const IlluminationLoop loop = FASTLLIE_CHOOSE(illumination_loop)(op, task.views[0].dtype == Dtype::f64);
  parallel(units_of(sizes, task.contiguous), worthwhile(threads, elements * task.count),
           [&](int64_t from, int64_t to) { loop(task, from, to); });
}

}  // namespace

void illumination_forward_cpu(const View& x, const View& illum, const View& out, const Sizes& sizes,
                              int threads) {
  execute(Illumination::illumination_forward, {x, illum, out}, 2, sizes, threads);
}

void illumination_backward_cpu(const View& grad, const View& x, const View& illum, const View& grad_x,
                               const View& grad_illum, const Sizes& sizes, int threads) {
  execute(Illumination::illumination_backward, {grad, x, illum, grad_x, grad_illum}, 3, sizes, threads);
}

void illuminate_forward_cpu(const View& raw, const View& v, const View& y, const View& illum, const View& out,
                            const Sizes& sizes, int threads) {
  execute(Illumination::illuminate_forward, {raw, v, y, illum, out}, 3, sizes, threads);
}

void illuminate_backward_cpu(const View& grad_illum, const View& grad_out, const View& raw, const View& v,
                             const View& y, const View& grad_raw, const View& grad_v, const View& grad_y,
                             const Sizes& sizes, int threads) {
  execute(Illumination::illuminate_backward, {grad_illum, grad_out, raw, v, y, grad_raw, grad_v, grad_y}, 5,
          sizes, threads);
}

}  // namespace fastllie
