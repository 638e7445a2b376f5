// What the CPU operators share: how tensors lie in memory, and how a call is cut into units of work.
#pragma once
#include "cpu/sizes.h"
#include "fastllie.h"

namespace fastllie {

constexpr int64_t PLANAR_PIXELS = 8192;  // of a unit of work
constexpr int64_t PACKED_PIXELS = 256;   // eight maps of them fit into the first cache

int64_t bytes_of(Dtype dtype);

// Whether the pixels of a row lie side by side; whether the next row starts where one ends. True of no
// tensor.
bool unit(const View& v);
bool rows_adjoin(const View& v, int64_t width);

// Whether an output of so many elements shall and can be written past the caches.
bool can_stream(const View& v, int64_t elements);

// Hint that an output is about to be written whole.
void expect_whole_pages(const View& v, int64_t elements);

// Units of work for sizes B, C, H, W. Planar: a unit is pixels of one channel. Interleaved: of all channels,
// which share cache lines.
int64_t units_of(const Sizes& sizes, bool contiguous);

// Threads that pay for elements to be read or written.
int worthwhile(int threads, int64_t elements);

// Where a unit of work lies.
struct Place {
  int64_t b, h, w, first, last, pixels;  // channels first to last - 1

  Place(int64_t unit, bool contiguous, const Sizes& sizes) {
    const int64_t block = contiguous ? PLANAR_PIXELS : PACKED_PIXELS;
    const int64_t blocks = (sizes[3] + block - 1) / block;
    w = unit % blocks * block;
    unit /= blocks;
    h = unit % sizes[2];
    unit /= sizes[2];
    b = contiguous ? unit / sizes[1] : unit;
    first = contiguous ? unit % sizes[1] : 0;
    last = contiguous ? first + 1 : sizes[1];
    pixels = sizes[3] - w < block ? sizes[3] - w : block;
  }

  int64_t offset(const View& v, int64_t c, int64_t at) const {
    return b * v.strides[0] + c * v.strides[1] + h * v.strides[2] + (w + at) * v.strides[3];
  }
};

}  // namespace fastllie
