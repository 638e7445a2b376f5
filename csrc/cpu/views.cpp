#include "cpu/views.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastllie {
namespace {

// Below this much work a thread costs more than it saves
constexpr int64_t ELEMENTS_PER_THREAD = 1 << 17;
// Outputs that would push more than this through the caches go past them
constexpr int64_t STREAM_BYTES = int64_t{8} << 20;

}  // namespace

int64_t bytes_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::f64:
      return 8;
    case Dtype::f32:
      return 4;
    case Dtype::u8:
      return 1;
    default:
      return 2;
  }
}

bool unit(const View& v) { return !v.data || v.strides[3] == 1; }

bool rows_adjoin(const View& v, int64_t width) { return !v.data || v.strides[2] == width * v.strides[3]; }

// Non-temporal stores need every vector of every row to start on a boundary of 64 bytes (32 for 16-bit
// types). Bytes are too few to pay.
bool can_stream(const View& v, int64_t elements) {
  if (!v.data || v.dtype == Dtype::u8 || elements * bytes_of(v.dtype) < STREAM_BYTES) return false;
  const int64_t lanes = v.dtype == Dtype::f64 ? 8 : 16;
  if (reinterpret_cast<uintptr_t>(v.data) % (lanes * bytes_of(v.dtype))) return false;
  for (int dim = 0; dim < 3; ++dim) {
    if (v.strides[dim] % lanes) return false;
  }
  return true;
}

// Fresh memory is paged in while the kernel writes it: by pages of 2 MiB that is 512 times fewer faults.
void expect_whole_pages(const View& v, int64_t elements) {
#if defined(__linux__)
  const uintptr_t page = uintptr_t{2} << 20;
  if (!v.data) return;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(v.data) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(v.data) + elements * bytes_of(v.dtype)) / page * page;
  // a hint: where the kernel of the machine declines it, nothing but time is lost
  if (begin < end) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)v, (void)elements;
#endif
}

int64_t units_of(const Sizes& sizes, bool contiguous) {
  const int64_t block = contiguous ? PLANAR_PIXELS : PACKED_PIXELS;
  return sizes[0] * (contiguous ? sizes[1] : 1) * sizes[2] * ((sizes[3] + block - 1) / block);
}

int worthwhile(int threads, int64_t elements) {
  const int64_t worth = 1 + elements / ELEMENTS_PER_THREAD;
  return worth < threads ? int(worth) : threads;
}

}  // namespace fastllie
