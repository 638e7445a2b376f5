// Between the entry point of Zero-DCE++'s network and its loops, which are compiled for each instruction set.
#pragma once
#include "cpu/convolution_task.h"

namespace fastllie {

// Packed weights of a layer: nine taps of each input, a row of outputs for each input, the bias. All of it
// fills whole lines of the cache.
constexpr int64_t zerodcepp_taps(int64_t inputs) { return (9 * inputs + 15) / 16 * 16; }
constexpr int64_t zerodcepp_weights(int64_t inputs) {
  return zerodcepp_taps(inputs) + inputs * OUTPUT_BLOCK + OUTPUT_BLOCK;
}

// The image that the network sees is cut into strips of columns and bands of rows; a unit of work is where
// the two cross. Every value is made by the same operations in any unit.
struct ZeroDcePPTask {
  const ZeroDcePP& network;
  int64_t height, width;  // of what the network sees
  int64_t strips, strip_columns, bands, band_rows;
  int64_t map_pitch;  // from row to row of the maps
  bool stream;

  int64_t units() const { return network.sizes[0] * strips * bands; }
};

// Does units `from` to `to`: of the network, or of the rows of all images that the enlarged maps brighten.
using ZeroDcePPLoop = void (*)(const ZeroDcePPTask& task, int64_t from, int64_t to);

struct ZeroDcePPLoops {
  ZeroDcePPLoop network, brighten;
};

FASTLLIE_DECLARE(ZeroDcePPLoops zerodcepp_loops())

}  // namespace fastllie
