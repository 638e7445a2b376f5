// Between the entry point of Zero-DCE's network and its loops, which are compiled for each instruction set.
#pragma once
#include "cpu/convolution_task.h"

namespace fastllie {

// The image is cut into strips of columns and bands of rows; a unit of work is where the two cross. Neither
// depends on the number of threads: a pixel's place in its tile does change its last bits.
struct ZeroDceTask {
  const ZeroDce& network;
  int64_t strips, strip_columns, bands, band_rows;

  int64_t units() const { return network.sizes[0] * strips * bands; }
};

// Does units `from` to `to` of the task.
using ZeroDceLoop = void (*)(const ZeroDceTask& task, int64_t from, int64_t to);

FASTLLIE_DECLARE_BF16(ZeroDceLoop zerodce_loop(bool pairs))

#if defined(FASTLLIE_KNOWS_TILES)
namespace amx {
ZeroDceLoop zerodce_tiles_loop();
}
#endif

}  // namespace fastllie
