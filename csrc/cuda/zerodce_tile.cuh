// A tile of one layer of Zero-DCE's network as products of 16 x 16 matrices, for tensor cores.
#pragma once
#include <cuda_pipeline_primitives.h>
#include <mma.h>

#include "access.cuh"

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
constexpr int WARPS = ITEMS, THREADS_OF_TILE = 32 * WARPS;
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

  __host__ __device__ __forceinline__ int64_t margin(int l) const { return network.zeros ? 0 : LAYERS - l; }
  __host__ __device__ __forceinline__ int64_t rows(int l) const { return network.sizes[2] + 2 * margin(l); }
  __host__ __device__ __forceinline__ int64_t columns(int l) const {
    return network.sizes[3] + 2 * margin(l);
  }
  __host__ __device__ __forceinline__ int64_t tiles_y() const { return (rows(layer) + TILE_H - 1) / TILE_H; }
  __host__ __device__ __forceinline__ int64_t tiles_x() const {
    return (columns(layer) + TILE_W - 1) / TILE_W;
  }
  __host__ __device__ __forceinline__ int64_t tiles() const {
    return network.sizes[0] * tiles_y() * tiles_x();
  }
  // The element where a pixel of layer l begins, or -1 where none is stored.
  __host__ __device__ __forceinline__ int64_t place(int l, int64_t b, int64_t h, int64_t w) const {
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
__host__ __device__ __forceinline__ int column_of(int step, int channel) {
  return 16 * (step / 4) + 8 * (step / 2 % 2) + 2 * channel + step % 2;
}

template <class F>
using Left = nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, SIDE, SIDE, SIDE, F, nvcuda::wmma::row_major>;
template <class F>
using Right = nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, SIDE, SIDE, SIDE, F, nvcuda::wmma::row_major>;
using Sums = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, SIDE, SIDE, SIDE, float>;

__device__ __forceinline__ int warp_index() { return threadIdx.x / 32; }
__device__ __forceinline__ int lane_index() { return threadIdx.x % 32; }

template <class F, int SOURCE_COUNT, bool ANEW, bool LAST>
struct Tile {
  using Space = Shared<F, SOURCE_COUNT>;

  const Task& task;
  Space& shared;
  int64_t b, top, left;

  __device__ __forceinline__ Tile(const Task& task, Space& shared, int64_t tile)
      : task(task), shared(shared) {
    const int64_t margin = task.margin(task.layer);
    left = tile % task.tiles_x() * TILE_W - margin;
    top = tile / task.tiles_x() % task.tiles_y() * TILE_H - margin;
    b = tile / (task.tiles_x() * task.tiles_y());
  }

  __device__ __forceinline__ bool outside(int64_t h, int64_t w) const {
    return h < 0 || h >= task.network.sizes[2] || w < 0 || w >= task.network.sizes[3];
  }

  __device__ __forceinline__ void run() const {
    if (ANEW) load_image();
    for (int s = ANEW ? 1 : 0; s < SOURCE_COUNT; ++s) load_source(s);
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncthreads();
    if (ANEW) {
      gather_neighbours();
      __syncthreads();
      first_layer();
      __syncthreads();
    }
    multiply();
    // before the next tile overwrites what this one reads
    __syncthreads();
  }

  // Of the skip, if there is one, and of the layer before.
  __device__ __forceinline__ void load_source(int s) const {
    const int l = SOURCE_COUNT == 2 && s == 0 ? skip() : task.layer - 1;
    const F* const stored = static_cast<const F*>(task.stored[s]);
    constexpr int VECTORS = CHANNELS / VECTOR;
    for (int item = threadIdx.x; item < NEAR * VECTORS; item += THREADS_OF_TILE) {
      const int pixel = item / VECTORS, c = item % VECTORS * VECTOR;
      F* const to = &shared.sources[s].halves[c / SIDE][pixel][c % SIDE];
      const int64_t from = task.place(l, b, top - 1 + pixel / NEAR_W, left - 1 + pixel % NEAR_W);
      if (from >= 0) {
        // past the registers, so that all of a tile's copies are under way at once
        __pipeline_memcpy_async(to, stored + from + c, sizeof(F) * VECTOR);
      } else {
        for (int k = 0; k < VECTOR; ++k) narrow(0.0f, to[k]);
      }
    }
  }
  __device__ __forceinline__ int skip() const { return LAYERS + 1 - task.layer; }

  __device__ __forceinline__ void load_image() const {
    const ZeroDceMatrices& network = task.network;
    const F* const x = static_cast<const F*>(network.x.data) + b * network.x.strides[0];
    for (int item = threadIdx.x; item < FAR * 3; item += THREADS_OF_TILE) {
      const int i = item / 3 / FAR_W, j = item / 3 % FAR_W, c = item % 3;
      int64_t h = top - 2 + i, w = left - 2 + j;
      F& to = shared.image[i][j][c];
      if (network.zeros && outside(h, w)) {
        narrow(0.0f, to);
        continue;
      }
      h = clamped(h, -network.around, network.sizes[2] - 1 + network.around);
      w = clamped(w, -network.around, network.sizes[3] - 1 + network.around);
      to = x[c * network.x.strides[1] + h * network.x.strides[2] + w * network.x.strides[3]];
    }
  }
  static __device__ __forceinline__ int64_t clamped(int64_t at, int64_t low, int64_t high) {
    return at < low ? low : at > high ? high : at;
  }

  // Row by row of a matrix what the first layer multiplies: 27 values of the image, filled up to 32.
  __device__ __forceinline__ void gather_neighbours() const {
    for (int item = threadIdx.x; item < NEAR_ROWS * CHANNELS; item += THREADS_OF_TILE) {
      const int pixel = item / CHANNELS, k = item % CHANNELS;
      F& to = shared.sources[0].halves[k / SIDE][pixel][k % SIDE];
      if (pixel < NEAR && k < 3 * TAPS)
        to = shared.image[pixel / NEAR_W + k / 9][pixel % NEAR_W + k / 3 % 3][k % 3];
      else
        narrow(0.0f, to);
    }
  }

  // In place: a product of 16 pixels reads no others.
  __device__ __forceinline__ void first_layer() const {
    const F* const matrix = static_cast<const F*>(task.network.matrices);
    auto& halves = shared.sources[0].halves;
    auto& sums = shared.sums[warp_index()];
    for (int item = warp_index(); item < NEAR_ROWS / SIDE; item += WARPS) {
      Sums result[2];
      for (int n = 0; n < 2; ++n) nvcuda::wmma::fill_fragment(result[n], 0.0f);
      for (int half = 0; half < 2; ++half) {
        Left<F> values;
        nvcuda::wmma::load_matrix_sync(values, halves[half][item * SIDE], SIDE);
        for (int n = 0; n < 2; ++n) {
          Right<F> weights;
          nvcuda::wmma::load_matrix_sync(weights, matrix + half * SIDE * CHANNELS + n * SIDE, CHANNELS);
          nvcuda::wmma::mma_sync(result[n], values, weights, result[n]);
        }
      }
      for (int n = 0; n < 2; ++n)
        nvcuda::wmma::store_matrix_sync(&sums[0][n * SIDE], result[n], CHANNELS, nvcuda::wmma::mem_row_major);
      __syncwarp();
      for (int at = lane_index(); at < SIDE * CHANNELS; at += 32) {
        const int row = at / CHANNELS, c = at % CHANNELS, pixel = item * SIDE + row;
        float v = sums[row][c] + task.network.biases[c];
        v = v < 0.0f ? 0.0f : v;
        if (task.network.zeros && outside(top - 1 + pixel / NEAR_W, left - 1 + pixel % NEAR_W)) v = 0.0f;
        narrow(v, halves[c / SIDE][pixel][c % SIDE]);
      }
      __syncwarp();
    }
  }

  __device__ __forceinline__ void multiply() const {
    const F* const matrix = static_cast<const F*>(task.network.matrices) + task.first_row * CHANNELS;
    for (int item = warp_index(); item < ITEMS; item += WARPS) {
      Sums result[ROWS_OF_ITEM][2];
#pragma unroll
      for (int r = 0; r < ROWS_OF_ITEM; ++r) {
#pragma unroll
        for (int n = 0; n < 2; ++n) nvcuda::wmma::fill_fragment(result[r][n], 0.0f);
      }
      // not unrolled: the matrices of one tap in registers at a time
#pragma unroll 1
      for (int s = 0; s < SOURCE_COUNT; ++s) {
#pragma unroll 1
        for (int tap = 0; tap < TAPS; ++tap) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            Right<F> weights[2];
            const F* const from = matrix + (s * SOURCE_ROWS + tap * CHANNELS + half * SIDE) * CHANNELS;
#pragma unroll
            for (int n = 0; n < 2; ++n) nvcuda::wmma::load_matrix_sync(weights[n], from + n * SIDE, CHANNELS);
#pragma unroll
            for (int r = 0; r < ROWS_OF_ITEM; ++r) {
              const int i = row_of(item, r), j = column_of_row(item, r);
              Left<F> values;
              nvcuda::wmma::load_matrix_sync(
                  values, shared.sources[s].halves[half][(i + tap / 3) * NEAR_W + j + tap % 3], SIDE);
#pragma unroll
              for (int n = 0; n < 2; ++n)
                nvcuda::wmma::mma_sync(result[r][n], values, weights[n], result[r][n]);
            }
          }
        }
      }
      auto& sums = shared.sums[warp_index()];
#pragma unroll
      for (int r = 0; r < ROWS_OF_ITEM; ++r) {
#pragma unroll
        for (int n = 0; n < 2; ++n)
          nvcuda::wmma::store_matrix_sync(&sums[0][n * SIDE], result[r][n], CHANNELS,
                                          nvcuda::wmma::mem_row_major);
        __syncwarp();
        if (LAST)
          curve(sums, top + row_of(item, r), left + column_of_row(item, r));
        else
          keep(sums, top + row_of(item, r), left + column_of_row(item, r));
        __syncwarp();
      }
    }
  }
  // Where in the tile the 16 neighbours lie that are row r of an item.
  static __device__ __forceinline__ int row_of(int item, int r) {
    return (item * ROWS_OF_ITEM + r) / (TILE_W / SIDE);
  }
  static __device__ __forceinline__ int column_of_row(int item, int r) {
    return (item * ROWS_OF_ITEM + r) % (TILE_W / SIDE) * SIDE;
  }

  // A hidden layer: the features of 16 pixels from (h, w).
  __device__ __forceinline__ void keep(const float (&sums)[SIDE][CHANNELS], int64_t h, int64_t w) const {
    const float* const biases = task.network.biases + (task.layer - 1) * CHANNELS;
    constexpr int VECTORS = CHANNELS / VECTOR;
    for (int item = lane_index(); item < SIDE * VECTORS; item += 32) {
      const int row = item / VECTORS, c = item % VECTORS * VECTOR;
      const int64_t to = task.place(task.layer, b, h, w + row);
      if (to < 0) continue;
      struct alignas(sizeof(F) * VECTOR) {
        F values[VECTOR];
      } pack;
#pragma unroll
      for (int k = 0; k < VECTOR; ++k) {
        const float v = sums[row][c + k] + biases[c + k];
        narrow(v < 0.0f ? 0.0f : v, pack.values[k]);
      }
      *reinterpret_cast<decltype(pack)*>(static_cast<F*>(task.to) + to + c) = pack;
    }
  }

  // The last layer: its maps go no further than the curve.
  __device__ __forceinline__ void curve(const float (&sums)[SIDE][CHANNELS], int64_t h, int64_t w) const {
    const ZeroDceMatrices& network = task.network;
    const float* const biases = network.biases + (LAYERS - 1) * CHANNELS;
    for (int item = lane_index(); item < SIDE * 3; item += 32) {
      const int row = item % SIDE, c = item / SIDE;
      if (outside(h, w + row)) continue;
      const auto offset = [&](const View& v) {
        return b * v.strides[0] + c * v.strides[1] + h * v.strides[2] + (w + row) * v.strides[3];
      };
      float v = widen(static_cast<const F*>(network.x.data)[offset(network.x)]);
#pragma unroll
      for (int step = 0; step < STEPS; ++step) {
        const int column = column_of(step, c);
        v = curve_step(v, tanh_rational(sums[row][column] + biases[column], 1.0f));
      }
      narrow(v, static_cast<F*>(network.out.data)[offset(network.out)]);
    }
  }
};

}  // namespace zerodce
}  // namespace fastllie
