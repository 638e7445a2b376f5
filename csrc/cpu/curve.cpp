#include "cpu/curve_task.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "cpu/isa.h"
#include "cpu/parallel.h"

namespace fastllie {
namespace {

// Below this much work a thread costs more than it saves
constexpr int64_t ELEMENTS_PER_THREAD = 1 << 17;
// Outputs that would push more than this through the caches go past them
constexpr int64_t STREAM_BYTES = int64_t{8} << 20;

int64_t bytes_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::f64:
      return 8;
    case Dtype::f32:
      return 4;
    default:
      return 2;
  }
}

bool unit(const View& v) { return !v.data || v.strides[3] == 1; }

bool rows_adjoin(const View& v, int64_t width) { return !v.data || v.strides[2] == width * v.strides[3]; }

// Non-temporal stores need every vector of every row to start on a boundary of 64 bytes (32 for 16-bit
// types).
bool can_stream(const View& v, int64_t elements) {
  if (!v.data || elements * bytes_of(v.dtype) < STREAM_BYTES) return false;
  const int64_t lanes = v.dtype == Dtype::f64 ? 8 : 16;
  if (reinterpret_cast<uintptr_t>(v.data) % (lanes * bytes_of(v.dtype))) return false;
  for (int dim = 0; dim < 3; ++dim) {
    if (v.strides[dim] % lanes) return false;
  }
  return true;
}

// Fresh memory is paged in while the kernel writes it: by pages of 2 MiB that is 512 times fewer faults.
void expect_whole_pages(const View& v, int64_t elements) {
#if defined(__linux__)
  const uintptr_t page = uintptr_t{2} << 20;
  if (!v.data) return;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(v.data) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(v.data) + elements * bytes_of(v.dtype)) / page * page;
  // a hint: where the kernel of the machine declines it, nothing but time is lost
  if (begin < end) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)v, (void)elements;
#endif
}

CurveLoop loop_for(const CurveTask& task, const Curve& curve, bool backward) {
  const auto pick = [&](auto curve_loop) {
    return curve_loop(task.x.dtype == Dtype::f64, curve.shared, curve.tanh, backward);
  };
#if defined(__x86_64__)
  if (isa() == Isa::avx512) return pick(avx512::curve_loop);
  if (isa() == Isa::avx2) return pick(avx2::curve_loop);
#endif
  return pick(baseline::curve_loop);
}

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

  const int64_t block = task.contiguous ? PLANAR_PIXELS : PACKED_PIXELS;
  const int64_t units = batch * (task.contiguous ? channels : 1) * height * ((width + block - 1) / block);
  const int64_t worth = 1 + all_maps / ELEMENTS_PER_THREAD;
  const CurveLoop loop = loop_for(task, curve, backward);
  parallel(units, worth < threads ? int(worth) : threads,
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
