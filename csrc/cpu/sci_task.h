// Between the entry point of SCI's network and its loops, which are compiled for each instruction set.
#pragma once
#include "cpu/isa.h"
#include "cpu/views.h"

namespace fastllie {

// The image is cut into bands of rows and strips of columns; a unit of work is where a band and a strip
// cross.
struct SciTask {
  View x, out;
  const void *weights, *biases;  // in the arithmetic's type
  Sizes sizes;
  bool residual, reflect;
  int64_t bands, band_rows, strips, strip_columns;  // strips of whole vectors
  bool stream;                                      // store the output past the caches

  int64_t units() const { return sizes[0] * bands * strips; }
};

// Does units `from` to `to` of the task.
using SciLoop = void (*)(const SciTask& task, int64_t from, int64_t to);

FASTLLIE_DECLARE(SciLoop sci_loop(bool wide))

}  // namespace fastllie
