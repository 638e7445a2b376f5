#include "gridcurve.h"

#include "cpu/gridcurve_task.h"
#include "cpu/parallel.h"

namespace fastllie {
namespace {

void execute(bool backward, GridCurveTask task, int threads) {
  const Sizes& sizes = task.curve.sizes;
  task.bands = gridcurve_parts_cpu(task.curve)[0];
  const int64_t pixels = sizes[0] * sizes[2] * sizes[3];
  expect_whole_pages(task.out, pixels * 3);
  const GridCurveLoop loop = FASTLLIE_CHOOSE(gridcurve_loop)(task.x.dtype == Dtype::f64, backward);
  // each value of the image is some hundred operations
  parallel(sizes[0] * grid_gaps(task.curve.cells[1]) * task.bands, worthwhile(threads, pixels * 16),
           [&](int64_t from, int64_t to) { loop(task, from, to); });
}

}  // namespace

std::array<int64_t, 2> gridcurve_parts_cpu(const GridCurve& curve) {
  return {grid_parts(curve.place[0], curve.sizes[2], curve.whole[0], curve.cells[1], GRID_BAND), 1};
}

void gridcurve_forward_cpu(const View& x, const void* grid, const View& guide, const View& out,
                           const GridCurve& curve, int threads) {
  GridCurveTask task{};
  task.curve = curve;
  task.x = x;
  task.grid = grid;
  task.guide = guide;
  task.out = out;
  execute(false, task, threads);
}

void gridcurve_backward_cpu(const View& grad, const View& x, const void* grid, const View& guide,
                            const View& grad_x, const View& grad_guide, double* parts,
                            const GridCurve& curve, int threads) {
  GridCurveTask task{};
  task.curve = curve;
  task.grad = grad;
  task.x = x;
  task.grid = grid;
  task.guide = guide;
  task.out = grad_x;
  task.grad_guide = grad_guide;
  task.parts = parts;
  execute(true, task, threads);
}

}  // namespace fastllie
