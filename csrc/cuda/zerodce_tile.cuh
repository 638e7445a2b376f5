// A tile of one layer of Zero-DCE's network as products of matrices, for tensor cores.
#pragma once
#include <cuda_pipeline_primitives.h>

#include "access.cuh"

namespace fastllie {
namespace zerodce {

constexpr int LAYERS = 7, CHANNELS = 32, STEPS = 8;
constexpr int LANES = 32;

// A product is of 16 neighbours of a row with 16 inputs, by 8 outputs at a time.
constexpr int SIDE = 16, OUTPUTS = 8;
constexpr int PARTS = CHANNELS / OUTPUTS, HALVES = CHANNELS / SIDE;
// Packed weights: see fastllie.ops.zerodce. Those of 16 inputs and all outputs, of which a lane has twice 8
constexpr int VECTOR = 8, SQUARE = SIDE * CHANNELS;
constexpr int FIRST_WEIGHTS = 3 * SQUARE;        // of the first layer: three rows of four neighbours
constexpr int WEIGHTS = 9 * HALVES * SQUARE;     // of each source of the others
constexpr int BEFORE[] = {0, 0, 1, 2, 3, 5, 7};  // sources of the layers before each
// The layers whose features each layer reads, from the second on: one, or the skip and the one before
constexpr int SOURCES[][2] = {{1, 0}, {2, 0}, {3, 0}, {3, 4}, {2, 5}, {1, 6}};

// Pixels of a block, and of a warp: four rows, so that each row that is read serves three of them.
constexpr int ROWS = 4, TILE_H = 8, TILE_W = 32;
constexpr int WARPS = TILE_H / ROWS * (TILE_W / SIDE), THREADS_OF_TILE = LANES * WARPS;
// A layer reads one pixel around its tile.
constexpr int NEAR_H = TILE_H + 2, NEAR_W = TILE_W + 2, NEAR = NEAR_H * NEAR_W;
constexpr int VECTORS = CHANNELS / VECTOR;
static_assert(THREADS_OF_TILE == TILE_W * VECTORS && TILE_W >= NEAR_H * (NEAR_W - TILE_W), "who copies what");
static_assert(NEAR_W % 2 == 0, "a pair of pixels is in one row, and fills the banks");

// Where features are, or shall be: pixels from `margin` beyond the image on, where they end zeros.
struct Features {
  void* data;
  int margin, rows, columns;
};

// Sizes below 2^31; a tile's place in memory takes 64 bits.
struct Task {
  View x, out;
  int height, width, around;
  bool zeros;
  unsigned tiles, tiles_y, tiles_x;
  const void* weights;
  const float* biases;
  Features sources[2], to;
};

// Where a tile begins in the image.
struct Origin {
  int64_t b;
  int top, left;
  __device__ __forceinline__ Origin(const Task& task, unsigned tile) {
    const unsigned above = tile / task.tiles_x, image = above / task.tiles_y;
    b = image;
    top = static_cast<int>(above - image * task.tiles_y) * TILE_H - task.to.margin;
    left = static_cast<int>(tile - above * task.tiles_x) * TILE_W - task.to.margin;
  }
};

// A warp's sums: of each row 16 pixels, of which a lane has two (of the first and the second eight), and of
// all outputs eight that adjoin.
struct Sums {
  float values[ROWS][PARTS][4];

  __device__ __forceinline__ void begin(const float* biases) {
#pragma unroll
    for (int n = 0; n < PARTS; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float bias = biases[threadIdx.x % 4 * VECTOR + 2 * n + e];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) values[r][n][e] = values[r][n][e + 2] = bias;
      }
    }
  }

  // The warp's own rows and columns of a tile
  static __device__ __forceinline__ int row() { return threadIdx.x / LANES / (TILE_W / SIDE) * ROWS; }
  static __device__ __forceinline__ int column() { return threadIdx.x / LANES % (TILE_W / SIDE) * SIDE; }

  // Row y, counted from the one above the first, times the weights of one column of taps: those of all rows
  // that it is a neighbour of.
  template <class F>
  __device__ __forceinline__ void add(int y, const unsigned (&pixels)[4], const uint4 (&weights)[3][2]) {
#pragma unroll
    for (int ky = 0; ky < 3; ++ky) {
      if (y - ky < 0 || y - ky >= ROWS) continue;
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const uint4& w = weights[ky][part];
        multiply_matrices<F>(values[y - ky][2 * part], pixels, w.x, w.y);
        multiply_matrices<F>(values[y - ky][2 * part + 1], pixels, w.z, w.w);
      }
    }
  }

  // A hidden layer's: rectified, into its features.
  template <class F>
  __device__ __forceinline__ void keep(const Task& task, const Origin& origin) const {
    const int lane = threadIdx.x % LANES;
    const int i = origin.top + task.to.margin + row(), j = origin.left + task.to.margin + column() + lane / 4;
    F* const to = static_cast<F*>(task.to.data) +
                  ((origin.b * task.to.rows + i) * task.to.columns + j) * CHANNELS + lane % 4 * VECTOR;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
#pragma unroll
      for (int second = 0; second < 2; ++second) {
        if (i + r >= task.to.rows || j + second * 8 >= task.to.columns) continue;
        float outputs[VECTOR];
#pragma unroll
        for (int k = 0; k < VECTOR; ++k) outputs[k] = at_least(values[r][k / 2][2 * second + k % 2], 0.0f);
        write(to + (static_cast<int64_t>(r) * task.to.columns + second * 8) * CHANNELS, outputs);
      }
    }
  }

  // The last layer's: its maps go no further than the curve. A lane has all those of a channel.
  template <class F>
  __device__ __forceinline__ void curve(const Task& task, const Origin& origin) const {
    const int lane = threadIdx.x % LANES, c = lane % 4;
    if (c == 3) return;
    const int h = origin.top + row(), w = origin.left + column() + lane / 4;
    const auto start = [&](const View& v) {
      return static_cast<F*>(v.data) + origin.b * v.strides[0] + c * v.strides[1] + h * v.strides[2] +
             w * v.strides[3];
    };
    const F* const x = start(task.x);
    F* const out = start(task.out);
    // all before the first is needed; of pixels that are not there others, which nobody keeps
    float pixels[ROWS][2];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
#pragma unroll
      for (int second = 0; second < 2; ++second) {
        const int down = min(h + r, task.height - 1) - h, right = min(w + second * 8, task.width - 1) - w;
        pixels[r][second] = widen(x[down * task.x.strides[2] + right * task.x.strides[3]]);
      }
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
#pragma unroll
      for (int second = 0; second < 2; ++second) {
        if (h + r >= task.height || w + second * 8 >= task.width) continue;
        float v = pixels[r][second];
#pragma unroll
        for (int step = 0; step < STEPS; ++step)
          v = curve_step(v, tanh_of(values[r][step / 2][2 * second + step % 2]));
        narrow(v, out[r * task.out.strides[2] + second * 8 * task.out.strides[3]]);
      }
    }
  }
};

// What a block keeps of a layer in shared memory. Resident: all weights for all of its tiles, and the next
// features beside those that are multiplied. Else one source's of both, in the 48 KiB that leave a second
// block room where a multiprocessor has 100.
template <class F, int SOURCE_COUNT, bool RESIDENT>
struct Space {
  F weights[RESIDENT ? SOURCE_COUNT : 1][WEIGHTS];
  F pixels[RESIDENT ? 2 : 1][NEAR * CHANNELS];
};

template <class F, int SOURCE_COUNT, bool RESIDENT>
struct Layer {
  using Memory = Space<F, SOURCE_COUNT, RESIDENT>;

  const Task& task;
  Memory& memory;

  __device__ __forceinline__ Layer(const Task& task, Memory& memory) : task(task), memory(memory) {}

  // All tiles of a block
  template <bool LAST>
  __device__ __forceinline__ void run() const {
    unsigned tile = blockIdx.x;
    if (RESIDENT) {
      for (int s = 0; s < SOURCE_COUNT; ++s) load_weights(s, memory.weights[s]);
      load_pixels(Origin(task, tile), 0, memory.pixels[0]);
      __pipeline_commit();
    }
    for (int turn = 0; tile < task.tiles;) {
      const Origin origin(task, tile);
      const unsigned next = tile + gridDim.x;
      Sums sums;
      sums.begin(task.biases);
#pragma unroll 1
      for (int s = 0; s < SOURCE_COUNT; ++s) {
        if (RESIDENT) {
          const bool last = s == SOURCE_COUNT - 1;
          if (!last || next < task.tiles)
            load_pixels(last ? Origin(task, next) : origin, last ? 0 : s + 1, memory.pixels[1 - turn]);
        } else {
          load_weights(s, memory.weights[0]);
          load_pixels(origin, s, memory.pixels[0]);
        }
        __pipeline_commit();
        __pipeline_wait_prior(RESIDENT ? 1 : 0);
        __syncthreads();
        multiply(memory.pixels[turn], memory.weights[RESIDENT ? s : 0], sums);
        // before what was read is overwritten
        __syncthreads();
        if (RESIDENT) turn = 1 - turn;
      }
      if constexpr (LAST)
        sums.template curve<F>(task, origin);
      else
        sums.template keep<F>(task, origin);
      tile = next;
    }
    __pipeline_wait_prior(0);
  }

  __device__ __forceinline__ void load_weights(int s, F* to) const {
    const F* const from = static_cast<const F*>(task.weights) + s * WEIGHTS;
    for (int at = threadIdx.x * VECTOR; at < WEIGHTS; at += THREADS_OF_TILE * VECTOR)
      __pipeline_memcpy_async(to + at, from + at, sizeof(F) * VECTOR);
  }

  // Past the registers, so that all of a tile's copies are under way at once. A thread takes a vector of each
  // row, and some one of the two columns that are left.
  __device__ __forceinline__ void load_pixels(const Origin& origin, int s, F* to) const {
    const Features& from = task.sources[s];
    const int top = origin.top - 1 + from.margin, left = origin.left - 1 + from.margin;
    const int j = threadIdx.x / VECTORS, vector = threadIdx.x % VECTORS;
    const F* const features = static_cast<const F*>(from.data) + vector * VECTOR;
    const F* const start = features + ((origin.b * from.rows + top) * from.columns + left) * CHANNELS;
    const auto copy = [&](int i, int j) {
      const bool inside = top + i >= 0 && top + i < from.rows && left + j >= 0 && left + j < from.columns;
      const F* const at = start + (static_cast<int64_t>(i) * from.columns + j) * CHANNELS;
      __pipeline_memcpy_async(to + (i * NEAR_W + j) * CHANNELS + place_of(vector, j) * VECTOR,
                              inside ? at : features, sizeof(F) * VECTOR, inside ? 0 : sizeof(F) * VECTOR);
    };
#pragma unroll
    for (int i = 0; i < NEAR_H; ++i) copy(i, j);
    const int i = threadIdx.x / VECTORS / (NEAR_W - TILE_W);
    if (i < NEAR_H) copy(i, TILE_W + j % (NEAR_W - TILE_W));
  }

  // A pixel's vectors change places by its column, so that the same of eight neighbours lie on all banks.
  static __device__ __forceinline__ int place_of(int vector, int j) { return vector ^ j / 2 % VECTORS; }

  static __device__ __forceinline__ void multiply(const F* pixels, const F* weights, Sums& sums) {
    const int lane = threadIdx.x % LANES;
    // the row of the two by two matrices of 8 x 8 whose address this lane gives
    const int pixel = lane % SIDE, vector = lane / SIDE;
    const F* const corner = pixels + (Sums::row() * NEAR_W + Sums::column()) * CHANNELS;
#pragma unroll
    for (int kx = 0; kx < 3; ++kx) {
#pragma unroll
      for (int half = 0; half < HALVES; ++half) {
        const int j = pixel + kx;
        const F* const from = corner + j * CHANNELS + place_of(2 * half + vector, j) * VECTOR;
        uint4 w[3][2];
#pragma unroll
        for (int ky = 0; ky < 3; ++ky) {
#pragma unroll
          for (int part = 0; part < 2; ++part) {
            const int at = ((kx * HALVES + half) * 3 + ky) * 2 + part;
            w[ky][part] = *reinterpret_cast<const uint4*>(weights + (at * LANES + lane) * VECTOR);
          }
        }
#pragma unroll
        for (int y = 0; y < ROWS + 2; ++y) {
          unsigned rows[4];
          load_matrices(rows, from + y * NEAR_W * CHANNELS);
          sums.add<F>(y, rows, w);
        }
      }
    }
  }
};

}  // namespace zerodce
}  // namespace fastllie
