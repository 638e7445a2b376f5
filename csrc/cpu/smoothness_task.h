// Between the entry points of the smoothness loss and its loops, which are compiled for each instruction set.
#pragma once
#include "cpu/isa.h"
#include "cpu/views.h"

namespace fastllie {

// Images are cut into tiles of fixed sizes, whatever the number of threads: so sums keep their order. Strips
// whose rows, three at a time, fit into the first cache.
constexpr int64_t TILE_ROWS = 64;
constexpr int64_t TILE_COLUMNS = 208;

struct SmoothnessTask {
  Smoothness settings;
  View illum, guide;
  View grad_illum, grad_guide;  // of the backward; a null one is not wanted
  bool stream_illum, stream_guide;
  double* parts;  // of the forward: one sum a tile, or 24
  // of the backward: what the slope of |d| and of the squared distance is multiplied by
  double illum_factors[OFFSETS], guide_factors[OFFSETS];
};

struct Tile {
  int64_t b, top, bottom, left, right;

  Tile(int64_t unit, const Sizes& sizes) {
    const int64_t height = sizes[2], width = sizes[3];
    const int64_t strips = (width + TILE_COLUMNS - 1) / TILE_COLUMNS;
    // equal strips, of whole vectors
    const int64_t columns = ((width + strips - 1) / strips + 15) / 16 * 16;
    const int64_t bands = (height + TILE_ROWS - 1) / TILE_ROWS;
    left = unit % strips * columns;
    right = left + columns < width ? left + columns : width;
    unit /= strips;
    top = unit % bands * TILE_ROWS;
    bottom = top + TILE_ROWS < height ? top + TILE_ROWS : height;
    b = unit / bands;
  }
};

int64_t tiles_of(const Sizes& sizes);

// Does tiles `from` to `to` of the task.
using SmoothnessLoop = void (*)(const SmoothnessTask& task, int64_t from, int64_t to);

// Does units `from` to `to` of so many triples, of `total` values in all.
constexpr int64_t MEMORY_ORDER_TRIPLES = 256;
using MemoryOrderLoop = void (*)(const View& grad_colours, const View& grad_guide, int64_t total,
                                 int64_t from, int64_t to);

FASTLLIE_DECLARE(MemoryOrderLoop memory_order_loop(bool wide))
FASTLLIE_DECLARE(SmoothnessLoop smoothness_loop(bool backward, const SmoothnessTask& task))

}  // namespace fastllie
