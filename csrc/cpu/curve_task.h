// Between the curve's entry points and its loops, which are compiled for each instruction set.
#pragma once
#include "cpu/isa.h"
#include "cpu/views.h"

namespace fastllie {

// The work of one call, with rows merged where every tensor allows it.
struct CurveTask {
  View grad, x, alpha, out, grad_alpha;
  Sizes sizes;
  int64_t steps;
  bool contiguous;  // every tensor's pixels of a row lie side by side
  bool direct;      // and they are stored in the type of the arithmetic
  bool stream_out, stream_grad_alpha;
};

// Does units `from` to `to` of the task.
using CurveLoop = void (*)(const CurveTask& task, int64_t from, int64_t to);

FASTLLIE_DECLARE(CurveLoop curve_loop(bool wide, bool shared, bool tanh, bool backward))

}  // namespace fastllie
