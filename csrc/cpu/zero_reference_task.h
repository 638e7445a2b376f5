// Between the entry points of the zero-reference losses and their loops, which are compiled for each
// instruction set.
#pragma once
#include "cpu/isa.h"
#include "cpu/views.h"

namespace fastllie {

// Images are cut into strips of whole patches, of fixed sizes whatever the number of threads: so sums keep
// their order. Three rows of 24 maps fit into the second cache; strips of 64 columns, for the first one, were
// no faster.
constexpr int64_t STRIP_ROWS = 64;
constexpr int64_t STRIP_COLUMNS = 128;

struct ZeroReferenceTask {
  Curve curve;
  View x, alpha;
  void *cells, *patches;    // of the forward, in the type of the arithmetic
  double* parts;            // of the forward: three sums of channels and two of differences, a strip
  View grad_x, grad_alpha;  // of the backward; a null one is not wanted
  bool stream_x, stream_alpha;
  const void *slopes, *channels;  // of the backward, in the type of the arithmetic
  double vertical, horizontal;    // of the backward: what differences of neighbours are multiplied by
};

struct Strip {
  int64_t b, top, bottom, left, right;

  Strip(int64_t unit, const Sizes& sizes) {
    const int64_t height = sizes[2], width = sizes[3];
    const int64_t across = (width + STRIP_COLUMNS - 1) / STRIP_COLUMNS;
    left = unit % across * STRIP_COLUMNS;
    right = left + STRIP_COLUMNS < width ? left + STRIP_COLUMNS : width;
    unit /= across;
    const int64_t down = (height + STRIP_ROWS - 1) / STRIP_ROWS;
    top = unit % down * STRIP_ROWS;
    bottom = top + STRIP_ROWS < height ? top + STRIP_ROWS : height;
    b = unit / down;
  }
};

// Does strips `from` to `to` of the task.
using ZeroReferenceLoop = void (*)(const ZeroReferenceTask& task, int64_t from, int64_t to);

FASTLLIE_DECLARE(ZeroReferenceLoop zero_reference_loop(bool backward, const ZeroReferenceTask& task))

}  // namespace fastllie
