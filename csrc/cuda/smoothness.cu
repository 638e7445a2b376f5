#include "access.cuh"
#include "smoothness.h"

namespace fastllie {
namespace {

// A block's pixels, with those around them. Each warp has some rows of them, and each lane a column: what a
// thread reads of a row of neighbours serves all of its pixels.
constexpr int COLUMNS = 32, LINES = 32, WARPS = THREADS / 32;
constexpr int HELD_COLUMNS = COLUMNS + 2 * REACH, ACROSS = 2 * REACH + 1;
// float64 takes the lines in two parts, or they would not fit into 48 KiB
template <class T>
constexpr int PARTS = sizeof(T) / 4;
template <class T>
constexpr int ROWS = LINES / (WARPS * PARTS<T>);
template <class T>
constexpr int HELD_ROWS = WARPS * ROWS<T> + 2 * REACH;
// The colour of what lies outside of the image: so far from any other that its weight is 0
constexpr float FAR = 1e18f;

__device__ __forceinline__ float exp2_of(float z) { return power_of_two(z); }
__device__ __forceinline__ double exp2_of(double z) { return ::exp2(z); }
__device__ __forceinline__ float magnitude(float d) { return fabsf(d); }
__device__ __forceinline__ double magnitude(double d) { return fabs(d); }
// v or -v: one instruction on the bits
__device__ __forceinline__ float with_sign(float v, float d) {
  unsigned value, sign;
  memcpy(&value, &v, 4);
  memcpy(&sign, &d, 4);
  value ^= sign & 0x80000000u;
  memcpy(&v, &value, 4);
  return v;
}
__device__ __forceinline__ double with_sign(double v, double d) { return copysign(1.0, d) * v; }

struct Task {
  int64_t sizes[4];
  double scale;                               // of colours, so that a weight is 2^-|difference|^2
  View illum, guide, grad_illum, grad_guide;  // a null gradient is not wanted
  double* parts;
  const double *grad, *means;
  int64_t across, down;  // tiles
  // Of each pair number one over how many there are
  double shares[OFFSETS];
  float narrow_shares[OFFSETS];
};

__device__ __forceinline__ void share_of(const Task& task, int d, double& to) { to = task.shares[d]; }
__device__ __forceinline__ void share_of(const Task& task, int d, float& to) { to = task.narrow_shares[d]; }

// The number of the pair of a pixel and the one (dy, dx) further, whichever of them comes first.
__device__ __forceinline__ constexpr int pair_number(int dy, int dx) {
  return dy > 0 || (dy == 0 && dx > 0) ? 5 * dy + dx - 1 : 5 * -dy - dx - 1;
}

template <class T>
struct Held {
  T illum[3][HELD_ROWS<T>][HELD_COLUMNS], colour[3][HELD_ROWS<T>][HELD_COLUMNS];
};

// Illumination and colour of one pixel
template <class T>
struct Pixel {
  T illum[3], colour[3];
};

template <class T>
__device__ __forceinline__ Pixel<T> pixel_of(const Held<T>& held, int row, int column) {
  Pixel<T> pixel;
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    pixel.illum[c] = held.illum[c][row][column];
    pixel.colour[c] = held.colour[c][row][column];
  }
  return pixel;
}

// What two pixels have to do with each other
template <class T>
struct Pair {
  T e[3], a[3], weight, size;
  __device__ __forceinline__ Pair(const Pixel<T>& p, const Pixel<T>& q) {
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      e[c] = p.colour[c] - q.colour[c];
      a[c] = p.illum[c] - q.illum[c];
    }
    weight = exp2_of(-squared(e));
    size = magnitude(a[0]) + magnitude(a[1]) + magnitude(a[2]);
  }
};

// Where a block's pixels are
struct Corner {
  int64_t b, top, left;
  __device__ __forceinline__ explicit Corner(const Task& task) {
    int64_t i = blockIdx.x;
    left = i % task.across * COLUMNS;
    i /= task.across;
    top = i % task.down * LINES;
    b = i / task.down;
  }
};

template <Color COLOR, class S, class T>
__device__ __forceinline__ void read_colour(const Task& task, int64_t b, int64_t y, int64_t x, T scale,
                                            T (&colour)[3]) {
  if constexpr (COLOR == Color::memory) {
    // three consecutive values are converted together, wherever a row or plane ends
    const int64_t* const sizes = task.sizes;
    const int64_t plane = sizes[2] * sizes[3];
    const S* const image = static_cast<const S*>(task.guide.data) + b * 3 * plane;
    for (int c = 0; c < 3; ++c) {
      const int64_t m = c * plane + y * sizes[3] + x;
      const int j = static_cast<int>(m % 3);
      T sum = T(j == 0 ? ycbcr_bias(0) : ycbcr_bias(1));
      for (int i = 0; i < 3; ++i) {
        // chosen, not indexed: the matrix stays in the instructions
        const T factor = T(j == 0 ? ycbcr(i, 0) : j == 1 ? ycbcr(i, 1) : ycbcr(i, 2));
        sum += widen(image[m - j + i]) * factor;
      }
      colour[c] = scale * sum;
    }
  } else {
    T rgb[3];
    const S* const from = at<S>(task.guide, b, 0, y, x);
    for (int c = 0; c < 3; ++c) rgb[c] = scale * widen(from[c * task.guide.strides[1]]);
    if constexpr (COLOR == Color::ycbcr) {
      to_ycbcr<T>(rgb, colour);
    } else {
      for (int c = 0; c < 3; ++c) colour[c] = rgb[c];
    }
  }
}

// What lies at row r, column s of what a block holds from `top` on. Outside of the image the nearest pixel is
// read all the same: a load that nothing has to be asked for is on its way at once.
template <Color COLOR, class S, class T>
__device__ __forceinline__ Pixel<T> fetch(const Task& task, const Corner& corner, int64_t top, int r, int s) {
  const int height = int(task.sizes[2]), width = int(task.sizes[3]);
  const int y = int(top) + r - REACH, x = int(corner.left) + s - REACH;
  const int row = min(max(y, 0), height - 1), column = min(max(x, 0), width - 1);
  const bool inside = y == row && x == column;
  Pixel<T> pixel;
  read_colour<COLOR, S>(task, corner.b, row, column, T(task.scale), pixel.colour);
  const S* const from = at<S>(task.illum, corner.b, 0, row, column);
  for (int c = 0; c < 3; ++c) {
    const T illum = widen(from[c * task.illum.strides[1]]);
    pixel.illum[c] = inside ? illum : T(0);
    pixel.colour[c] = inside ? pixel.colour[c] : T(FAR);
  }
  return pixel;
}

// Fills what a block holds, from `top` on.
template <Color COLOR, class S, class T>
__device__ __forceinline__ void hold(const Task& task, const Corner& corner, int64_t top, Held<T>& held) {
  for (int i = threadIdx.x; i < HELD_ROWS<T> * HELD_COLUMNS; i += THREADS) {
    const int r = i / HELD_COLUMNS, s = i % HELD_COLUMNS;
    const Pixel<T> pixel = fetch<COLOR, S, T>(task, corner, top, r, s);
    for (int c = 0; c < 3; ++c) {
      held.illum[c][r][s] = pixel.illum[c];
      held.colour[c][r][s] = pixel.colour[c];
    }
  }
  __syncthreads();
}

// The sums over the block in an order that is always the same: threads below COUNT return one each.
template <int COUNT>
__device__ __forceinline__ double sums_of_block(double (&values)[COUNT]) {
  __shared__ double warps[COUNT][WARPS];
#pragma unroll
  for (int i = 0; i < COUNT; ++i) {
    for (int step = 16; step > 0; step /= 2) values[i] += __shfl_down_sync(0xffffffff, values[i], step);
    if (threadIdx.x % 32 == 0) warps[i][threadIdx.x / 32] = values[i];
  }
  __syncthreads();
  double sum = 0;
  if (threadIdx.x < COUNT)
    for (int i = 0; i < WARPS; ++i) sum += warps[threadIdx.x][i];
  return sum;
}

template <class S, Color COLOR, bool SCALAR>
__global__ void __launch_bounds__(THREADS, 2) forward_kernel(const __grid_constant__ Task task) {
  using T = typename Wide<S>::type;
  constexpr int COUNT = SCALAR ? 2 * OFFSETS : 1;
  __shared__ Held<T> held;
  const Corner corner(task);
  const int64_t x = corner.left + threadIdx.x % 32;
  T sums[COUNT] = {};
  for (int part = 0; part < PARTS<T>; ++part) {
    // before the last part's pixels are overwritten
    if (part) __syncthreads();
    const int64_t top = corner.top + part * WARPS * ROWS<T>;
    hold<COLOR, S>(task, corner, top, held);
    const int line = threadIdx.x / 32 * ROWS<T>, s = threadIdx.x % 32;
    Pixel<T> own[ROWS<T>];
#pragma unroll
    for (int r = 0; r < ROWS<T>; ++r) own[r] = pixel_of(held, line + r + REACH, s + REACH);
#pragma unroll
    for (int n = 0; n < ROWS<T> + REACH; ++n) {
#pragma unroll
      for (int k = 0; k < ACROSS; ++k) {
        const Pixel<T> other = pixel_of(held, line + n + REACH, s + k);
#pragma unroll
        for (int r = 0; r < ROWS<T>; ++r) {
          const int dy = n - r, dx = k - REACH;
          if (dy < 0 || dy > REACH || (dy == 0 && dx <= 0)) continue;
          const int d = pair_number(dy, dx);
          const Pair<T> pair(own[r], other);
          if constexpr (SCALAR) {
            const int64_t y = top + line + r;
            const bool there = y + dy < task.sizes[2] && x < task.sizes[3] && x + dx >= 0 && x + dx < task.sizes[3];
            sums[d] += there ? pair.weight : T(0);
            sums[OFFSETS + d] += there ? pair.size : T(0);
          } else {
            T share;
            share_of(task, d, share);
            sums[0] += pair.weight * pair.size * share;
          }
        }
      }
    }
  }
  double wide[COUNT];
#pragma unroll
  for (int i = 0; i < COUNT; ++i) wide[i] = double(sums[i]);
  const double sum = sums_of_block(wide);
  if (threadIdx.x >= COUNT) return;
  const int d = int(threadIdx.x) % OFFSETS;
  const double share = !SCALAR ? 1 : threadIdx.x < OFFSETS ? task.shares[d] : task.shares[d] / 3;
  task.parts[blockIdx.x * int64_t{COUNT} + threadIdx.x] = sum * share;
}

// The gradients of one pixel
template <class S, Color COLOR, class T>
__device__ __forceinline__ void keep(const Task& task, int64_t b, int64_t y, int64_t x, const T (&slope_o)[3],
                                     const T (&slope_f)[3]) {
  for (int c = 0; task.grad_illum.data && c < 3; ++c)
    narrow(slope_o[c], *const_cast<S*>(at<S>(task.grad_illum, b, c, y, x)));
  if (!task.grad_guide.data) return;
  T slope[3];
  if constexpr (COLOR == Color::ycbcr) {
    from_ycbcr<T>(slope_f, slope);
  } else {
    for (int c = 0; c < 3; ++c) slope[c] = slope_f[c];
  }
  for (int c = 0; c < 3; ++c) {
    if constexpr (COLOR == Color::memory) {
      *const_cast<T*>(at<T>(task.grad_guide, b, c, y, x)) = slope[c];
    } else {
      narrow(slope[c], *const_cast<S*>(at<S>(task.grad_guide, b, c, y, x)));
    }
  }
}

template <class S, Color COLOR, bool SCALAR>
__global__ void __launch_bounds__(THREADS, 2) backward_kernel(const __grid_constant__ Task task) {
  using T = typename Wide<S>::type;
  __shared__ Held<T> held;
  __shared__ T illum_factors[OFFSETS];
  __shared__ T guide_factors[OFFSETS];
  if (SCALAR && threadIdx.x < OFFSETS) {
    const int d = threadIdx.x;
    illum_factors[d] = T(task.shares[d] * task.means[d] / 3);
    guide_factors[d] = T(task.shares[d] * task.means[OFFSETS + d]);
  }
  const Corner corner(task);
  const int64_t x = corner.left + threadIdx.x % 32;
  const T factor = T(2 * *task.grad), steepness = T(-2 * task.scale / LOG2_E) * factor;
  for (int part = 0; part < PARTS<T>; ++part) {
    // before the last part's pixels are overwritten
    if (part) __syncthreads();
    const int64_t top = corner.top + part * WARPS * ROWS<T>;
    hold<COLOR, S>(task, corner, top, held);
    const int line = threadIdx.x / 32 * ROWS<T>, s = threadIdx.x % 32;
    Pixel<T> own[ROWS<T>];
    T slope_o[ROWS<T>][3] = {}, slope_f[ROWS<T>][3] = {};
#pragma unroll
    for (int r = 0; r < ROWS<T>; ++r) own[r] = pixel_of(held, line + r + REACH, s + REACH);
#pragma unroll
    for (int n = -REACH; n < ROWS<T> + REACH; ++n) {
#pragma unroll
      for (int k = 0; k < ACROSS; ++k) {
        const Pixel<T> other = pixel_of(held, line + n + REACH, s + k);
#pragma unroll
        for (int r = 0; r < ROWS<T>; ++r) {
          const int dy = n - r, dx = k - REACH;
          if (dy < -REACH || dy > REACH || (dy == 0 && dx == 0)) continue;
          const int d = pair_number(dy, dx);
          const Pair<T> pair(own[r], other);
          T slope, steep;
          if constexpr (SCALAR) {
            const int64_t y = top + line + r + dy;
            const bool there = y >= 0 && y < task.sizes[2] && x + dx >= 0 && x + dx < task.sizes[3];
            slope = there ? illum_factors[d] : T(0);
            steep = guide_factors[d] * pair.weight;
          } else {
            T share;
            share_of(task, d, share);
            slope = share * pair.weight;
            steep = slope * pair.size;
          }
#pragma unroll
          for (int c = 0; c < 3; ++c) {
            if (pair.a[c] != 0) slope_o[r][c] += with_sign(slope, pair.a[c]);
            slope_f[r][c] += steep * pair.e[c];
          }
        }
      }
    }
#pragma unroll
    for (int r = 0; r < ROWS<T>; ++r) {
      for (int c = 0; c < 3; ++c) {
        slope_o[r][c] *= factor;
        slope_f[r][c] *= steepness;
      }
      const int64_t y = top + line + r;
      if (y < task.sizes[2] && x < task.sizes[3]) keep<S, COLOR>(task, corner.b, y, x, slope_o[r], slope_f[r]);
    }
  }
}

template <class T, class S>
__global__ void __launch_bounds__(THREADS) colours_kernel(const T* from, S* to, int64_t triples) {
  for (int64_t k = blockIdx.x * int64_t{THREADS} + threadIdx.x; k < triples;
       k += int64_t{gridDim.x} * THREADS) {
    const T colour[3] = {from[3 * k], from[3 * k + 1], from[3 * k + 2]};
    T value[3];
    from_ycbcr<T>(colour, value);
    for (int c = 0; c < 3; ++c) narrow(value[c], to[3 * k + c]);
  }
}

template <class S>
void launch_colours(const View& from, const View& to, int64_t triples, cudaStream_t stream) {
  using T = typename Wide<S>::type;
  colours_kernel<T, S><<<blocks_for(triples), THREADS, 0, stream>>>(static_cast<const T*>(from.data),
                                                                    static_cast<S*>(to.data), triples);
  check(cudaGetLastError());
}

// What chooses the kernel.
struct Kind {
  Color color;
  bool scalar, backward;
};

template <class S, Color COLOR, bool SCALAR>
void launch(const Task& task, const Kind& kind, cudaStream_t stream) {
  const dim3 blocks(static_cast<unsigned>(task.sizes[0] * task.down * task.across));
  if (kind.backward) {
    backward_kernel<S, COLOR, SCALAR><<<blocks, THREADS, 0, stream>>>(task);
  } else {
    forward_kernel<S, COLOR, SCALAR><<<blocks, THREADS, 0, stream>>>(task);
  }
  check(cudaGetLastError());
}

template <class S, Color COLOR>
void launch(const Task& task, const Kind& kind, cudaStream_t stream) {
  if (kind.scalar) return launch<S, COLOR, true>(task, kind, stream);
  launch<S, COLOR, false>(task, kind, stream);
}

template <class S>
void launch(const Task& task, const Kind& kind, cudaStream_t stream) {
  switch (kind.color) {
    case Color::ycbcr:
      return launch<S, Color::ycbcr>(task, kind, stream);
    case Color::memory:
      return launch<S, Color::memory>(task, kind, stream);
    default:
      return launch<S, Color::rgb>(task, kind, stream);
  }
}

void execute(Task task, const Smoothness& settings, bool backward, int device, void* stream) {
  const OnDevice guard(device);
  for (int i = 0; i < 4; ++i) task.sizes[i] = settings.sizes[i];
  task.scale = sqrt(settings.kappa * LOG2_E);
  task.across = tiles(task.sizes[3], COLUMNS);
  task.down = tiles(task.sizes[2], LINES);
  for (int d = 0; d < OFFSETS; ++d) {
    task.shares[d] = 1 / double(pairs_of(task.sizes, d));
    task.narrow_shares[d] = float(task.shares[d]);
  }
  const Kind kind{settings.color, settings.scalar, backward};
  const auto s = static_cast<cudaStream_t>(stream);
  switch (task.illum.dtype) {
    case Dtype::f64:
      return launch<double>(task, kind, s);
    case Dtype::bf16:
      return launch<__nv_bfloat16>(task, kind, s);
    case Dtype::f16:
      return launch<__half>(task, kind, s);
    default:
      return launch<float>(task, kind, s);
  }
}

}  // namespace

int64_t smoothness_blocks_cuda(const Sizes& sizes) {
  return sizes[0] * tiles(sizes[2], LINES) * tiles(sizes[3], COLUMNS);
}

void smoothness_forward_cuda(const View& illum, const View& guide, double* parts, const Smoothness& settings,
                             int device, void* stream) {
  Task task{};
  task.illum = illum;
  task.guide = guide;
  task.parts = parts;
  execute(task, settings, false, device, stream);
}

void smoothness_backward_cuda(const View& illum, const View& guide, const View& grad_illum,
                              const View& grad_guide, const double* grad, const double* means,
                              const Smoothness& settings, int device, void* stream) {
  Task task{};
  task.illum = illum;
  task.guide = guide;
  task.grad_illum = grad_illum;
  task.grad_guide = grad_guide;
  task.grad = grad;
  task.means = means;
  execute(task, settings, true, device, stream);
}

void smoothness_colours_cuda(const View& grad_colours, const View& grad_guide, int64_t triples, int device,
                             void* stream) {
  const OnDevice guard(device);
  const auto s = static_cast<cudaStream_t>(stream);
  switch (grad_guide.dtype) {
    case Dtype::f64:
      return launch_colours<double>(grad_colours, grad_guide, triples, s);
    case Dtype::bf16:
      return launch_colours<__nv_bfloat16>(grad_colours, grad_guide, triples, s);
    case Dtype::f16:
      return launch_colours<__half>(grad_colours, grad_guide, triples, s);
    default:
      return launch_colours<float>(grad_colours, grad_guide, triples, s);
  }
}

}  // namespace fastllie
