// Between the entry points of illumination division and its loops, which are compiled for each instruction
// set.
#pragma once
#include "cpu/isa.h"
#include "cpu/views.h"

namespace fastllie {

constexpr int ILLUMINATION_VIEWS = 8;

// The work of one call on tensors of one shape and dtype: inputs first, then outputs; a null output is not
// wanted.
struct IlluminationTask {
  std::array<View, ILLUMINATION_VIEWS> views;
  int count;
  Sizes sizes;
  bool contiguous;  // every tensor's pixels of a row lie side by side
  bool direct;      // and they are stored in the type of the arithmetic
  std::array<bool, ILLUMINATION_VIEWS> stream;
};

// Does units `from` to `to` of the task.
using IlluminationLoop = void (*)(const IlluminationTask& task, int64_t from, int64_t to);

enum class Illumination {
  illumination_forward,
  illumination_backward,
  illuminate_forward,
  illuminate_backward
};

FASTLLIE_DECLARE(IlluminationLoop illumination_loop(Illumination op, bool wide))

}  // namespace fastllie
