// A tile of one layer of Zero-DCE's network as products of 16 x 16 matrices, for tensor cores. What a block
// does stands here in phases, each a loop over items that need nothing of each other, with a barrier after
// it: on a GPU the items are spread over threads or warps, and where a team is one thread it does them one
// after the other. So a CPU can run the same indexing, and the same arithmetic around the products.
#pragma once
#include "curve.h"
#include "fastllie.h"

#if defined(__CUDACC__)
#define FASTLLIE_TILE __device__ __forceinline__
#define FASTLLIE_EVERYWHERE __host__ __device__ __forceinline__
#define FASTLLIE_UNROLL _Pragma("unroll")
#define FASTLLIE_KEEP_LOOP _Pragma("unroll 1")
#else
#define FASTLLIE_TILE inline
#define FASTLLIE_EVERYWHERE inline
#define FASTLLIE_UNROLL
#define FASTLLIE_KEEP_LOOP
#endif

namespace fastllie {
namespace zerodce {

constexpr int LAYERS = 7, CHANNELS = 32, TAPS = 9, STEPS = 8;
constexpr int SIDE = 16;   // of a matrix
constexpr int VECTOR = 8;  // channels that are copied at a time: 16 bytes of float16
// Rows of the packed matrix where each layer begins: 32 of the first, 9 x 32 of each source of the others
constexpr int FIRST_ROWS[] = {0, 32, 320, 608, 896, 1472, 2048};
constexpr int SOURCE_ROWS = TAPS * CHANNELS;
// The layers whose features each layer reads, from the second on: one, or the skip and the one before
constexpr int SOURCES[][2] = {{1, 0}, {2, 0}, {3, 0}, {3, 4}, {2, 5}, {1, 6}};

// Output pixels of a tile, and how many times 16 neighbours of a row make an item: weights are read once for
// all.
constexpr int TILE_H = 8, TILE_W = 32;
constexpr int ROWS_OF_ITEM = 4;
constexpr int ITEMS = TILE_H * TILE_W / (SIDE * ROWS_OF_ITEM);
constexpr int WARPS = ITEMS;
// A layer reads one pixel around its tile, and the first layer one more.
constexpr int NEAR_H = TILE_H + 2, NEAR_W = TILE_W + 2, NEAR = NEAR_H * NEAR_W;
constexpr int FAR_H = TILE_H + 4, FAR_W = TILE_W + 4, FAR = FAR_H * FAR_W;
// The pixels around a tile in whole matrices
constexpr int NEAR_ROWS = (NEAR + SIDE - 1) / SIDE * SIDE;
static_assert(TILE_W % SIDE == 0 && ITEMS * SIDE * ROWS_OF_ITEM == TILE_H * TILE_W, "items are whole");

// Halves of 16 channels, pixel by pixel: the matrix of 16 neighbours has a pitch of 16 and begins at a
// multiple of 32 bytes, as wmma wants it, whatever the column.
template <class F>
struct Features {
  F halves[2][NEAR_ROWS][SIDE];
};

template <class F, int SOURCES>
struct alignas(32) Shared {
  Features<F> sources[SOURCES];
  float sums[WARPS][SIDE][CHANNELS];
  F image[FAR_H][FAR_W][3];
};

// One layer: what it reads and writes. Rows and columns are counted from the image's first pixel; features of
// layer l are stored from -margin(l) on, and where they end each layer finds zeros.
struct Task {
  ZeroDceMatrices network;
  int layer;      // from 2 to 7
  int first_row;  // of its weights in the packed matrix
  const void*
      stored[2];  // the features of its sources; null for those of the first layer, which are made anew
  void* to;       // of the layer itself; null for the last one

  FASTLLIE_EVERYWHERE int64_t margin(int l) const { return network.zeros ? 0 : LAYERS - l; }
  FASTLLIE_EVERYWHERE int64_t rows(int l) const { return network.sizes[2] + 2 * margin(l); }
  FASTLLIE_EVERYWHERE int64_t columns(int l) const { return network.sizes[3] + 2 * margin(l); }
  FASTLLIE_EVERYWHERE int64_t tiles_y() const { return (rows(layer) + TILE_H - 1) / TILE_H; }
  FASTLLIE_EVERYWHERE int64_t tiles_x() const { return (columns(layer) + TILE_W - 1) / TILE_W; }
  FASTLLIE_EVERYWHERE int64_t tiles() const { return network.sizes[0] * tiles_y() * tiles_x(); }
  // The element where a pixel of layer l begins, or -1 where none is stored.
  FASTLLIE_EVERYWHERE int64_t place(int l, int64_t b, int64_t h, int64_t w) const {
    const int64_t i = h + margin(l), j = w + margin(l);
    if (i < 0 || i >= rows(l) || j < 0 || j >= columns(l)) return -1;
    return ((b * rows(l) + i) * columns(l) + j) * CHANNELS;
  }
};

inline Task task_of(const ZeroDceMatrices& network, int layer) {
  Task task{network, layer, FIRST_ROWS[layer - 1], {}, nullptr};
  const int* const sources = SOURCES[layer - 2];
  for (int s = 0; s < 2; ++s) task.stored[s] = sources[s] > 1 ? network.features[sources[s] - 2] : nullptr;
  if (layer < LAYERS) task.to = network.features[layer - 2];
  return task;
}

// Of the packed matrix's columns, that of a step's map of a channel.
FASTLLIE_EVERYWHERE int column_of(int step, int channel) {
  return 16 * (step / 4) + 8 * (step / 2 % 2) + 2 * channel + step % 2;
}

// A team works on a tile: threads, in warps of lanes. `Matrix` multiplies, and knows the storage type F.
//   Team: thread, threads, warp, warps, lane, lanes; barrier(), warp_barrier();
//         copy(F* to, const F* from) of VECTOR elements, done at the latest after copied()
//   Matrix: F; A, B, Sums; load(A&, from, pitch), load(B&, from, pitch), clear(Sums&), add(Sums&, A, B),
//           store(float*, Sums, pitch); narrow(float, F&), widen(F)
template <class Matrix, class Team, int SOURCE_COUNT, bool ANEW, bool LAST>
struct Tile {
  using F = typename Matrix::F;
  using Space = Shared<F, SOURCE_COUNT>;

  const Team& team;
  const Task& task;
  Space& shared;
  int64_t b, top, left;

  FASTLLIE_TILE Tile(const Team& team, const Task& task, Space& shared, int64_t tile)
      : team(team), task(task), shared(shared) {
    const int64_t margin = task.margin(task.layer);
    left = tile % task.tiles_x() * TILE_W - margin;
    top = tile / task.tiles_x() % task.tiles_y() * TILE_H - margin;
    b = tile / (task.tiles_x() * task.tiles_y());
  }

  FASTLLIE_TILE bool outside(int64_t h, int64_t w) const {
    return h < 0 || h >= task.network.sizes[2] || w < 0 || w >= task.network.sizes[3];
  }

  FASTLLIE_TILE void run() const {
    if (ANEW) load_image();
    for (int s = ANEW ? 1 : 0; s < SOURCE_COUNT; ++s) load_source(s);
    team.copied();
    team.barrier();
    if (ANEW) {
      gather_neighbours();
      team.barrier();
      first_layer();
      team.barrier();
    }
    multiply();
    // before the next tile overwrites what this one reads
    team.barrier();
  }

  // Of the skip, if there is one, and of the layer before.
  FASTLLIE_TILE void load_source(int s) const {
    const int l = SOURCE_COUNT == 2 && s == 0 ? skip() : task.layer - 1;
    const F* const stored = static_cast<const F*>(task.stored[s]);
    constexpr int VECTORS = CHANNELS / VECTOR;
    for (int item = team.thread; item < NEAR * VECTORS; item += team.threads) {
      const int pixel = item / VECTORS, c = item % VECTORS * VECTOR;
      F* const to = &shared.sources[s].halves[c / SIDE][pixel][c % SIDE];
      const int64_t from = task.place(l, b, top - 1 + pixel / NEAR_W, left - 1 + pixel % NEAR_W);
      if (from >= 0) {
        team.copy(to, stored + from + c);
      } else {
        for (int k = 0; k < VECTOR; ++k) Matrix::narrow(0.0f, to[k]);
      }
    }
  }
  FASTLLIE_TILE int skip() const { return LAYERS + 1 - task.layer; }

  FASTLLIE_TILE void load_image() const {
    const ZeroDceMatrices& network = task.network;
    const F* const x = static_cast<const F*>(network.x.data) + b * network.x.strides[0];
    for (int item = team.thread; item < FAR * 3; item += team.threads) {
      const int i = item / 3 / FAR_W, j = item / 3 % FAR_W, c = item % 3;
      int64_t h = top - 2 + i, w = left - 2 + j;
      F& to = shared.image[i][j][c];
      if (network.zeros && outside(h, w)) {
        Matrix::narrow(0.0f, to);
        continue;
      }
      h = clamped(h, -network.around, network.sizes[2] - 1 + network.around);
      w = clamped(w, -network.around, network.sizes[3] - 1 + network.around);
      to = x[c * network.x.strides[1] + h * network.x.strides[2] + w * network.x.strides[3]];
    }
  }
  static FASTLLIE_TILE int64_t clamped(int64_t at, int64_t low, int64_t high) {
    return at < low ? low : at > high ? high : at;
  }

  // Row by row of a matrix what the first layer multiplies: 27 values of the image, filled up to 32.
  FASTLLIE_TILE void gather_neighbours() const {
    for (int item = team.thread; item < NEAR_ROWS * CHANNELS; item += team.threads) {
      const int pixel = item / CHANNELS, k = item % CHANNELS;
      F& to = shared.sources[0].halves[k / SIDE][pixel][k % SIDE];
      if (pixel < NEAR && k < 3 * TAPS)
        to = shared.image[pixel / NEAR_W + k / 9][pixel % NEAR_W + k / 3 % 3][k % 3];
      else
        Matrix::narrow(0.0f, to);
    }
  }

  // In place: a product of 16 pixels reads no others.
  FASTLLIE_TILE void first_layer() const {
    const F* const matrix = static_cast<const F*>(task.network.matrices);
    auto& halves = shared.sources[0].halves;
    auto& sums = shared.sums[team.warp];
    for (int item = team.warp; item < NEAR_ROWS / SIDE; item += team.warps) {
      typename Matrix::Sums result[2];
      for (int n = 0; n < 2; ++n) Matrix::clear(result[n]);
      for (int half = 0; half < 2; ++half) {
        typename Matrix::A values;
        Matrix::load(values, halves[half][item * SIDE], SIDE);
        for (int n = 0; n < 2; ++n) {
          typename Matrix::B weights;
          Matrix::load(weights, matrix + half * SIDE * CHANNELS + n * SIDE, CHANNELS);
          Matrix::add(result[n], values, weights);
        }
      }
      for (int n = 0; n < 2; ++n) Matrix::store(&sums[0][n * SIDE], result[n], CHANNELS);
      team.warp_barrier();
      for (int at = team.lane; at < SIDE * CHANNELS; at += team.lanes) {
        const int row = at / CHANNELS, c = at % CHANNELS, pixel = item * SIDE + row;
        float v = sums[row][c] + task.network.biases[c];
        v = v < 0.0f ? 0.0f : v;
        if (task.network.zeros && outside(top - 1 + pixel / NEAR_W, left - 1 + pixel % NEAR_W)) v = 0.0f;
        Matrix::narrow(v, halves[c / SIDE][pixel][c % SIDE]);
      }
      team.warp_barrier();
    }
  }

  FASTLLIE_TILE void multiply() const {
    const F* const matrix = static_cast<const F*>(task.network.matrices) + task.first_row * CHANNELS;
    for (int item = team.warp; item < ITEMS; item += team.warps) {
      typename Matrix::Sums result[ROWS_OF_ITEM][2];
      FASTLLIE_UNROLL
      for (int r = 0; r < ROWS_OF_ITEM; ++r) {
        FASTLLIE_UNROLL
        for (int n = 0; n < 2; ++n) Matrix::clear(result[r][n]);
      }
      // not unrolled: the matrices of one tap in registers at a time
      FASTLLIE_KEEP_LOOP
      for (int s = 0; s < SOURCE_COUNT; ++s) {
        FASTLLIE_KEEP_LOOP
        for (int tap = 0; tap < TAPS; ++tap) {
          FASTLLIE_UNROLL
          for (int half = 0; half < 2; ++half) {
            typename Matrix::B weights[2];
            const F* const from = matrix + (s * SOURCE_ROWS + tap * CHANNELS + half * SIDE) * CHANNELS;
            FASTLLIE_UNROLL
            for (int n = 0; n < 2; ++n) Matrix::load(weights[n], from + n * SIDE, CHANNELS);
            FASTLLIE_UNROLL
            for (int r = 0; r < ROWS_OF_ITEM; ++r) {
              const int i = row_of(item, r), j = column_of_row(item, r);
              typename Matrix::A values;
              Matrix::load(values, shared.sources[s].halves[half][(i + tap / 3) * NEAR_W + j + tap % 3],
                           SIDE);
              FASTLLIE_UNROLL
              for (int n = 0; n < 2; ++n) Matrix::add(result[r][n], values, weights[n]);
            }
          }
        }
      }
      auto& sums = shared.sums[team.warp];
      FASTLLIE_UNROLL
      for (int r = 0; r < ROWS_OF_ITEM; ++r) {
        FASTLLIE_UNROLL
        for (int n = 0; n < 2; ++n) Matrix::store(&sums[0][n * SIDE], result[r][n], CHANNELS);
        team.warp_barrier();
        if (LAST)
          curve(sums, top + row_of(item, r), left + column_of_row(item, r));
        else
          keep(sums, top + row_of(item, r), left + column_of_row(item, r));
        team.warp_barrier();
      }
    }
  }
  // Where in the tile the 16 neighbours lie that are row r of an item.
  static FASTLLIE_TILE int row_of(int item, int r) { return (item * ROWS_OF_ITEM + r) / (TILE_W / SIDE); }
  static FASTLLIE_TILE int column_of_row(int item, int r) {
    return (item * ROWS_OF_ITEM + r) % (TILE_W / SIDE) * SIDE;
  }

  // A hidden layer: the features of 16 pixels from (h, w).
  FASTLLIE_TILE void keep(const float (&sums)[SIDE][CHANNELS], int64_t h, int64_t w) const {
    const float* const biases = task.network.biases + (task.layer - 1) * CHANNELS;
    constexpr int VECTORS = CHANNELS / VECTOR;
    for (int item = team.lane; item < SIDE * VECTORS; item += team.lanes) {
      const int row = item / VECTORS, c = item % VECTORS * VECTOR;
      const int64_t to = task.place(task.layer, b, h, w + row);
      if (to < 0) continue;
      struct alignas(sizeof(F) * VECTOR) {
        F values[VECTOR];
      } pack;
      FASTLLIE_UNROLL
      for (int k = 0; k < VECTOR; ++k) {
        const float v = sums[row][c + k] + biases[c + k];
        Matrix::narrow(v < 0.0f ? 0.0f : v, pack.values[k]);
      }
      *reinterpret_cast<decltype(pack)*>(static_cast<F*>(task.to) + to + c) = pack;
    }
  }

  // The last layer: its maps go no further than the curve.
  FASTLLIE_TILE void curve(const float (&sums)[SIDE][CHANNELS], int64_t h, int64_t w) const {
    const ZeroDceMatrices& network = task.network;
    const float* const biases = network.biases + (LAYERS - 1) * CHANNELS;
    for (int item = team.lane; item < SIDE * 3; item += team.lanes) {
      const int row = item % SIDE, c = item / SIDE;
      if (outside(h, w + row)) continue;
      const auto offset = [&](const View& v) {
        return b * v.strides[0] + c * v.strides[1] + h * v.strides[2] + (w + row) * v.strides[3];
      };
      float v = Matrix::widen(static_cast<const F*>(network.x.data)[offset(network.x)]);
      FASTLLIE_UNROLL
      for (int step = 0; step < STEPS; ++step) {
        const int column = column_of(step, c);
        v = curve_step(v, tanh_rational(sums[row][column] + biases[column], 1.0f));
      }
      Matrix::narrow(v, static_cast<F*>(network.out.data)[offset(network.out)]);
    }
  }
};

}  // namespace zerodce
}  // namespace fastllie
