// Between the entry points of the curve in a bilateral grid and its loops, which are compiled for each
// instruction set.
#pragma once
#include "cpu/isa.h"
#include "cpu/views.h"

namespace fastllie {

struct GridCurveTask {
  GridCurve curve;
  View grad, x, guide, out, grad_guide;  // `out` is the image in the forward, its gradient in the backward
  const void* grid;
  double* parts;  // of the backward
  int64_t bands;  // of each gap of rows
};

// Does units `from` to `to` of the task: bands of images.
using GridCurveLoop = void (*)(const GridCurveTask& task, int64_t from, int64_t to);

FASTLLIE_DECLARE(GridCurveLoop gridcurve_loop(bool wide, bool backward))

}  // namespace fastllie
