// How two warps walk through a strip of an image with the three layers of SCI's network.
#pragma once
#include "access.cuh"
#include "sci.h"

namespace fastllie {
namespace {

// The two warps of a block begin in the middle of a strip of the image, and walk up and down from there,
// their lanes side by side. Of each layer a warp keeps in registers the two rows whose sums are not complete;
// what a lane needs of its neighbours' columns they hand over, and what a warp needs of the other's half is
// one row of each layer, at the beginning.
constexpr int COLUMNS = 4;  // of a lane
constexpr int LANES = 32;
constexpr int STRIP = COLUMNS * LANES;
// Columns on each side of a strip that others keep: the halo, to whole lanes
constexpr int MARGIN = 4;
constexpr int KEPT = STRIP - 2 * MARGIN;
static_assert(SCI_HALO <= MARGIN && MARGIN % COLUMNS == 0, "what lanes at the rim get wrong is not kept");
constexpr int WARPS = 2;
constexpr int SCI_BLOCKS = 4;  // of a multiprocessor at a time, that the registers allow
// Rows that a warp keeps: of the first layer it computes two more, of the second one. More rows waste less,
// fewer keep more warps at work.
constexpr int MOST_ROWS = 32, FEWEST_ROWS = 4;
// The rows of a filter in the order that a warp meets them, their sum that stands in where the image is
// mirrored, and where an image of one row is so above and below
enum Taps { FIRST, MIDDLE, LAST, MIRRORED, ALONE, TAPS };
constexpr int TAP_ROW = 28;  // 27 weights, to whole packs

struct SciTask {
  View x, out;
  const void *weights, *biases;
  unsigned blocks, strips, segments;
  int height, width, rows;
  bool residual, reflect;
};

// How the pixels of a row lie in memory
enum class Order { packed, planar, interleaved };

__device__ __forceinline__ double at_least(double v, double low) { return v < low ? low : v; }

struct Bounds {
  static __device__ __forceinline__ double at_least(double v, double low) { return v < low ? low : v; }
  static __device__ __forceinline__ double at_most(double v, double high) { return v > high ? high : v; }
};

// What the last layer's sums are multiplied by, for enhanced()
template <class T>
constexpr T SCALE = 1;
template <>
constexpr float SCALE<float> = -1.44269504f;

// clamp(x / illum, 0, 1) with illum = clamp(sigmoid(z) + x, 1e-4, 1), from 2^scaled = e^-z. Two reciprocals:
// here they cost less than to divide once.
__device__ __forceinline__ float enhanced(float x, float scaled) {
  const float sigmoid = reciprocal(1.0f + power_of_two(scaled));
  const float illum = at_most(at_least(sigmoid + x, illum_min(1.0f)), 1.0f);
  return at_most(at_least(x * reciprocal(illum), 0.0f), 1.0f);
}
__device__ __forceinline__ double enhanced(double x, double z) {
  return sci_quotient<Bounds>(x, exp(Bounds::at_most(-z, 700.0)), 1.0);
}

template <class T>
struct Network {
  alignas(16) T taps[SCI_LAYERS][TAPS][TAP_ROW];  // channel, column, output
  alignas(16) T biases[SCI_LAYERS][COLUMNS];
};

// Of a warp
template <class T>
struct Space {
  Network<T> network;
  alignas(16) T handed[2][SCI_CHANNELS][STRIP];  // to the other warp: rows of the two hidden layers
  alignas(16) T staged[SCI_CHANNELS * STRIP];
};

// Three channels of a lane's columns
template <class T>
struct Pixels {
  T values[SCI_CHANNELS][COLUMNS];
};

// The sums of a layer that have not seen all of their rows: of the row behind the next one, and of that row
template <class T>
struct Pending {
  Pixels<T> behind, here;
};

// Rows are counted from the middle on, in the direction of the warp: -1 is the other warp's first one.
template <class X, Order ORDER, bool SIDES>
struct Walk {
  using T = typename Wide<X>::type;

  const SciTask& task;
  Space<T>& own;
  const Space<T>& other;
  int lane, begin, middle;  // the strip's first column, and the row where the warp that walks down begins
  int down;                 // 1 or -1
  const X* x;               // of row 0
  X* out;

  __device__ __forceinline__ Walk(const SciTask& task, Space<T> (&spaces)[WARPS], int64_t b, int begin,
                                  int middle)
      : task(task),
        own(spaces[threadIdx.x / LANES]),
        other(spaces[1 - threadIdx.x / LANES]),
        lane(threadIdx.x % LANES),
        begin(begin),
        middle(middle),
        down(threadIdx.x < LANES ? 1 : -1),
        x(static_cast<const X*>(task.x.data) + start(task.x, b)),
        out(static_cast<X*>(task.out.data) + start(task.out, b)) {}
  __device__ __forceinline__ int64_t start(const View& v, int64_t b) const {
    return b * v.strides[0] + row_of(0) * v.strides[2] + begin * v.strides[3];
  }

  __device__ __forceinline__ void run() const {
    Pending<T> pending[SCI_LAYERS] = {};
    Pixels<T> first = {};
    // by themselves what nearly all rows are: without conditions no sums have to change their registers
    const int begin_all = SCI_HALO;
    const int end_all = min(task.rows + 1, min(middle, task.height - middle) - SCI_HALO + 1);
// not unrolled: one row is 1,300 instructions
#pragma unroll 1
    for (int n = -1; n < task.rows + SCI_HALO; ++n) {
      if (n == begin_all) {
#pragma unroll 1
        for (; n < end_all; ++n) step<true>(n, pending, first);
      }
      step<false>(n, pending, first);
    }
  }

  // A row of the image, and what can be computed with it of each layer. All: all of that is wanted, and the
  // image goes on beyond it.
  template <bool ALL>
  __device__ __forceinline__ void step(int n, Pending<T> (&pending)[SCI_LAYERS], Pixels<T>& first) const {
    Pixels<T> row = fetch<ALL>(n);
    Pixels<T> f = add<0, ALL>(n, row, pending[0]);
    if (!ALL && n < 1) return;
    positive(f);
    if (!ALL && n == 1) exchange<1>(f, pending[1]);
    Pixels<T> g = add<1, ALL>(n - 1, f, pending[1]);
    const Pixels<T> before = first;
    first = f;
    if (!ALL && n < 2) return;
    positive(g);
    if (task.residual) {
#pragma unroll
      for (int c = 0; c < SCI_CHANNELS; ++c) {
#pragma unroll
        for (int i = 0; i < COLUMNS; ++i) g.values[c][i] += before.values[c][i];
      }
    }
    if (!ALL && n == 2) exchange<2>(g, pending[2]);
    Pixels<T> z = add<2, ALL>(n - 2, g, pending[2]);
    if (!ALL && n < 3) return;
    // again, out of the cache: three rows of it would fill the registers
    row = fetch<ALL>(n - 3);
#pragma unroll
    for (int c = 0; c < SCI_CHANNELS; ++c) {
#pragma unroll
      for (int i = 0; i < COLUMNS; ++i) z.values[c][i] = enhanced(row.values[c][i], z.values[c][i]);
    }
    store<ALL>(z, n - 3);
  }

  // Row 0 of what layer L reads for the other warp, whose own is row -1 here.
  template <int L>
  __device__ __forceinline__ void exchange(const Pixels<T>& f, Pending<T>& pending) const {
#pragma unroll
    for (int c = 0; c < SCI_CHANNELS; ++c) put(f.values[c], own.handed[L - 1][c] + lane * COLUMNS);
    __syncthreads();
    Pixels<T> behind;
#pragma unroll
    for (int c = 0; c < SCI_CHANNELS; ++c) {
      const auto pack = load<COLUMNS>(other.handed[L - 1][c] + lane * COLUMNS);
#pragma unroll
      for (int i = 0; i < COLUMNS; ++i) behind.values[c][i] = pack.values[i];
    }
    add<L, false>(-1, behind, pending);
  }

  static __device__ __forceinline__ void positive(Pixels<T>& f) {
#pragma unroll
    for (int c = 0; c < SCI_CHANNELS; ++c) {
#pragma unroll
      for (int i = 0; i < COLUMNS; ++i) f.values[c][i] = at_least(f.values[c][i], T(0));
    }
  }

  // A row of what layer L reads. Returns the sums of the row behind it, which are then complete.
  template <int L, bool ALL>
  __device__ __forceinline__ Pixels<T> add(int n, Pixels<T>& f, Pending<T>& pending) const {
    Pixels<T> complete = pending.behind, here = pending.here, ahead;
    const auto bias = load<COLUMNS>(own.network.biases[L]);
#pragma unroll
    for (int o = 0; o < SCI_CHANNELS; ++o) {
#pragma unroll
      for (int i = 0; i < COLUMNS; ++i) ahead.values[o][i] = bias.values[o];
    }
    if (ALL || inside_row(n)) {
      if (SIDES) limit(f);
      T window[SCI_CHANNELS][COLUMNS + 2];
#pragma unroll
      for (int c = 0; c < SCI_CHANNELS; ++c) {
        window[c][0] = __shfl_up_sync(0xffffffff, f.values[c][COLUMNS - 1], 1);
        window[c][COLUMNS + 1] = __shfl_down_sync(0xffffffff, f.values[c][0], 1);
#pragma unroll
        for (int i = 0; i < COLUMNS; ++i) window[c][i + 1] = f.values[c][i];
      }
      // rows of this layer's sums that are needed
      const int rows = task.rows + SCI_LAYERS - 1 - L;
      const auto& taps = own.network.taps[L];
      if (ALL || n >= 1) multiply(taps[!ALL && mirrored(n - 1, -1) ? MIRRORED : LAST], window, complete);
      if (ALL || (n >= 0 && n < rows))
        multiply(taps[!ALL && task.reflect && task.height == 1 ? ALONE : MIDDLE], window, here);
      if (ALL || n + 1 < rows) multiply(taps[!ALL && mirrored(n + 1, 1) ? MIRRORED : FIRST], window, ahead);
    }
    pending.behind = here;
    pending.here = ahead;
    return complete;
  }
  __device__ __forceinline__ int row_of(int n) const { return down > 0 ? middle + n : middle - 1 - n; }
  __device__ __forceinline__ bool inside_row(int n) const {
    return row_of(n) >= 0 && row_of(n) < task.height;
  }
  // Whether the image is mirrored at row n, behind which the next one in this direction would be
  __device__ __forceinline__ bool mirrored(int n, int direction) const {
    return task.reflect && inside_row(n) && !inside_row(n + direction);
  }

  static __device__ __forceinline__ void multiply(const T* taps, const T (&window)[SCI_CHANNELS][COLUMNS + 2],
                                                  Pixels<T>& sums) {
#pragma unroll
    for (int at = 0; at < TAP_ROW; at += COLUMNS) {
      const auto weights = load<COLUMNS>(taps + at);
#pragma unroll
      for (int k = 0; k < COLUMNS; ++k) {
        const int c = (at + k) / SCI_TAPS, kx = (at + k) / SCI_CHANNELS % 3, o = (at + k) % SCI_CHANNELS;
        if (c == SCI_CHANNELS) break;
#pragma unroll
        for (int i = 0; i < COLUMNS; ++i) sums.values[o][i] += window[c][i + kx] * weights.values[k];
      }
    }
  }

  // What lies outside the image, but not further than one column: zero, or its mirror image.
  __device__ __forceinline__ void limit(Pixels<T>& f) const {
    const int w = begin + lane * COLUMNS;
#pragma unroll
    for (int c = 0; c < SCI_CHANNELS; ++c) {
      auto& v = f.values[c];
      if (!task.reflect) {
#pragma unroll
        for (int i = 0; i < COLUMNS; ++i) v[i] = w + i >= 0 && w + i < task.width ? v[i] : T(0);
        continue;
      }
      const bool alone = task.width == 1;
      const T before[2] = {__shfl_up_sync(0xffffffff, v[COLUMNS - 2], 1),
                           __shfl_up_sync(0xffffffff, v[COLUMNS - 1], 1)};
      const T after = __shfl_down_sync(0xffffffff, alone ? v[0] : v[1], 1);
      // from the right, so that what is read is still there
#pragma unroll
      for (int i = COLUMNS - 1; i >= 0; --i) {
        const T second = i >= 2 ? v[i - 2] : before[i], neighbour = i >= 1 ? v[i - 1] : before[1];
        v[i] = w + i == task.width ? (alone ? neighbour : second) : v[i];
      }
      v[COLUMNS - 1] = w + COLUMNS == 0 ? after : v[COLUMNS - 1];
    }
  }

  // ---- memory ----

  // A row of the image, zero outside of it.
  template <bool ALL>
  __device__ __forceinline__ Pixels<T> fetch(int n) const {
    Pixels<T> got = {};
    if (!ALL && !inside_row(n)) return got;
    const View& v = task.x;
    const X* const at = x + n * down * v.strides[2];
#pragma unroll
    for (int c = 0; c < SCI_CHANNELS; ++c) {
      if constexpr (ORDER == Order::packed) {
        const int w = lane * COLUMNS;
        if (inside(w)) read(at + c * v.strides[1] + w, got.values[c]);
      } else {
#pragma unroll
        for (int i = 0; i < COLUMNS; ++i) {
          const int e = element(c, i);
          if (inside(column_of(e))) got.values[c][i] = widen(at[offset(v, c, e)]);
        }
      }
    }
    if constexpr (ORDER == Order::packed) {
      return got;
    } else {
      __syncwarp();
#pragma unroll
      for (int c = 0; c < SCI_CHANNELS; ++c) {
#pragma unroll
        for (int i = 0; i < COLUMNS; ++i) own.staged[place(c, i)] = got.values[c][i];
      }
      __syncwarp();
      Pixels<T> arranged;
#pragma unroll
      for (int part = 0; part < SCI_CHANNELS; ++part) {
        const auto pack = load<COLUMNS>(own.staged + own_place(part));
#pragma unroll
        for (int i = 0; i < COLUMNS; ++i) own_value(arranged, part, i) = pack.values[i];
      }
      return arranged;
    }
  }

  template <bool ALL>
  __device__ __forceinline__ void store(Pixels<T>& y, int n) const {
    const View& v = task.out;
    X* const at = out + n * down * v.strides[2];
    const bool rows = ALL || inside_row(n);
    if constexpr (ORDER == Order::packed) {
      const int w = lane * COLUMNS;
      if (!rows || !kept(w)) return;
#pragma unroll
      for (int c = 0; c < SCI_CHANNELS; ++c) write(at + c * v.strides[1] + w, y.values[c]);
    } else {
      __syncwarp();
#pragma unroll
      for (int part = 0; part < SCI_CHANNELS; ++part) {
        T pack[COLUMNS];
#pragma unroll
        for (int i = 0; i < COLUMNS; ++i) pack[i] = own_value(y, part, i);
        put(pack, own.staged + own_place(part));
      }
      __syncwarp();
#pragma unroll
      for (int c = 0; c < SCI_CHANNELS; ++c) {
#pragma unroll
        for (int i = 0; i < COLUMNS; ++i) {
          const int e = element(c, i);
          if (rows && kept(column_of(e))) narrow(own.staged[place(c, i)], at[offset(v, c, e)]);
        }
      }
    }
  }

  static __device__ __forceinline__ void put(const T (&pack)[COLUMNS], T* at) {
    if constexpr (sizeof(T) == 4) {
      uint4 words;
      memcpy(&words, pack, sizeof words);
      *reinterpret_cast<uint4*>(at) = words;
    } else {
#pragma unroll
      for (int i = 0; i < COLUMNS; ++i) at[i] = pack[i];
    }
  }

  // Of the strip: an element of three times as many as it has columns, or a column.
  __device__ __forceinline__ int element(int c, int i) const {
    return (ORDER == Order::interleaved ? c * STRIP : 0) + i * LANES + lane;
  }
  static __device__ __forceinline__ int column_of(int n) {
    return ORDER == Order::interleaved ? n / SCI_CHANNELS : n;
  }
  static __device__ __forceinline__ int64_t offset(const View& v, int c, int n) {
    return ORDER == Order::interleaved ? n : c * v.strides[1] + n * v.strides[3];
  }
  __device__ __forceinline__ int place(int c, int i) const { return c * STRIP + i * LANES + lane; }
  // Where a lane finds its columns: a channel's, or of all channels a third
  __device__ __forceinline__ int own_place(int part) const {
    return ORDER == Order::interleaved ? (lane * SCI_CHANNELS + part) * COLUMNS
                                       : part * STRIP + lane * COLUMNS;
  }
  static __device__ __forceinline__ T& own_value(Pixels<T>& own, int part, int i) {
    const int n = part * COLUMNS + i;
    return ORDER == Order::interleaved ? own.values[n % SCI_CHANNELS][n / SCI_CHANNELS] : own.values[part][i];
  }
  __device__ __forceinline__ bool inside(int w) const {
    return !SIDES || (begin + w >= 0 && begin + w < task.width);
  }
  __device__ __forceinline__ bool kept(int w) const { return w >= MARGIN && w < MARGIN + KEPT && inside(w); }
};

}  // namespace
}  // namespace fastllie
