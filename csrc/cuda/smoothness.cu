#include "access.cuh"
#include "smoothness.h"

namespace fastllie {
namespace {

constexpr int TILE_COLUMNS = 32, TILE_ROWS = 8;
constexpr int HELD_COLUMNS = TILE_COLUMNS + 2 * REACH, HELD_ROWS = TILE_ROWS + 2 * REACH;
static_assert(TILE_COLUMNS * TILE_ROWS == THREADS);

__device__ __forceinline__ float exp2_of(float z) { return exp2f(z); }
__device__ __forceinline__ double exp2_of(double z) { return ::exp2(z); }
__device__ __forceinline__ float magnitude(float d) { return fabsf(d); }
__device__ __forceinline__ double magnitude(double d) { return fabs(d); }

__device__ __forceinline__ float with_sign(float v, float d) { return d == 0 ? 0 : copysignf(1, d) * v; }
__device__ __forceinline__ double with_sign(double v, double d) { return d == 0 ? 0 : copysign(1.0, d) * v; }

struct Task {
  int64_t sizes[4];
  double kappa;
  View illum, guide, grad_illum, grad_guide;  // a null gradient is not wanted
  double* parts;
  const double *grad, *means;
  int64_t across, down;  // tiles
};

// The tile of a block, with the pixels around it; illumination, and colours scaled so that a weight is
// 2^-|difference|^2.
template <class T>
struct Held {
  T illum[3][HELD_ROWS][HELD_COLUMNS], colour[3][HELD_ROWS][HELD_COLUMNS];
};

struct Corner {
  int64_t b, row, column;
  __device__ explicit Corner(const Task& task) {
    int64_t i = blockIdx.x;
    column = i % task.across * TILE_COLUMNS;
    i /= task.across;
    row = i % task.down * TILE_ROWS;
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
    for (int c = 0; c < 3; ++c) rgb[c] = scale * widen(*at<S>(task.guide, b, c, y, x));
    if constexpr (COLOR == Color::ycbcr) {
      to_ycbcr<T>(rgb, colour);
    } else {
      for (int c = 0; c < 3; ++c) colour[c] = rgb[c];
    }
  }
}

// Fills what a block holds; pixels outside the image are never used.
template <Color COLOR, class S, class T>
__device__ void hold(const Task& task, const Corner& corner, Held<T>& held) {
  const int64_t* const sizes = task.sizes;
  const T scale = T(sqrt(task.kappa * LOG2_E));
  for (int i = threadIdx.x; i < HELD_ROWS * HELD_COLUMNS; i += THREADS) {
    const int r = i / HELD_COLUMNS, s = i % HELD_COLUMNS;
    const int64_t y = corner.row + r - REACH, x = corner.column + s - REACH;
    if (y < 0 || y >= sizes[2] || x < 0 || x >= sizes[3]) continue;
    T colour[3];
    read_colour<COLOR, S>(task, corner.b, y, x, scale, colour);
    for (int c = 0; c < 3; ++c) {
      held.illum[c][r][s] = widen(*at<S>(task.illum, corner.b, c, y, x));
      held.colour[c][r][s] = colour[c];
    }
  }
  __syncthreads();
}

// The sum over the block in an order that is always the same, in thread 0.
__device__ double sum_of_block(double value) {
  __shared__ double warps[THREADS / 32];
  for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(0xffffffff, value, step);
  __syncthreads();
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < THREADS / 32; ++i) value += warps[i];
  }
  return value;
}

template <class S, Color COLOR, bool SCALAR>
__global__ void __launch_bounds__(THREADS) forward_kernel(const Task task) {
  using T = typename Wide<S>::type;
  __shared__ Held<T> held;
  const Corner corner(task);
  hold<COLOR, S>(task, corner, held);
  const int64_t* const sizes = task.sizes;
  const int r = threadIdx.x / TILE_COLUMNS + REACH, s = threadIdx.x % TILE_COLUMNS + REACH;
  const int64_t y = corner.row + r - REACH, x = corner.column + s - REACH;
  double total = 0;
  double* const parts = task.parts + blockIdx.x * int64_t{SCALAR ? 2 * OFFSETS : 1};
#pragma unroll
  for (int d = 0; d < OFFSETS; ++d) {
    const int dy = offset_y(d), dx = offset_x(d);
    const bool there = y + dy < sizes[2] && x < sizes[3] && x + dx >= 0 && x + dx < sizes[3];
    T e[3], a[3];
    for (int c = 0; c < 3; ++c) {
      e[c] = held.colour[c][r][s] - held.colour[c][r + dy][s + dx];
      a[c] = held.illum[c][r][s] - held.illum[c][r + dy][s + dx];
    }
    const T weight = exp2_of(-squared(e));
    const T size = magnitude(a[0]) + magnitude(a[1]) + magnitude(a[2]);
    const double share = 1 / double(pairs_of(sizes, d));
    if constexpr (SCALAR) {
      const double weights = sum_of_block(there ? double(weight) : 0);
      const double sizes_sum = sum_of_block(there ? double(size) : 0);
      if (threadIdx.x == 0) {
        parts[d] = weights * share;
        parts[OFFSETS + d] = sizes_sum * share / 3;
      }
    } else {
      total += there ? double(weight * size) * share : 0;
    }
  }
  if constexpr (!SCALAR) {
    total = sum_of_block(total);
    if (threadIdx.x == 0) parts[0] = total;
  }
}

template <class S, Color COLOR, bool SCALAR>
__global__ void __launch_bounds__(THREADS) backward_kernel(const Task task) {
  using T = typename Wide<S>::type;
  __shared__ Held<T> held;
  __shared__ T illum_factors[OFFSETS];
  __shared__ T guide_factors[OFFSETS];
  if (threadIdx.x < OFFSETS) {
    const int d = threadIdx.x;
    const double factor = 2 * *task.grad / double(pairs_of(task.sizes, d));
    illum_factors[d] = T(SCALAR ? factor * task.means[d] / 3 : factor);
    guide_factors[d] = T(SCALAR ? factor * task.means[OFFSETS + d] : factor);
  }
  const Corner corner(task);
  hold<COLOR, S>(task, corner, held);
  const int64_t* const sizes = task.sizes;
  const int r = threadIdx.x / TILE_COLUMNS + REACH, s = threadIdx.x % TILE_COLUMNS + REACH;
  const int64_t y = corner.row + r - REACH, x = corner.column + s - REACH;
  if (y >= sizes[2] || x >= sizes[3]) return;
  T slope_o[3] = {}, slope_f[3] = {};
#pragma unroll
  for (int n = 0; n < 2 * OFFSETS; ++n) {
    const int d = n / 2, sign = n % 2 ? -1 : 1;
    const int dy = sign * offset_y(d), dx = sign * offset_x(d);
    if (y + dy < 0 || y + dy >= sizes[2] || x + dx < 0 || x + dx >= sizes[3]) continue;
    T e[3], a[3];
    for (int c = 0; c < 3; ++c) {
      e[c] = held.colour[c][r][s] - held.colour[c][r + dy][s + dx];
      a[c] = held.illum[c][r][s] - held.illum[c][r + dy][s + dx];
    }
    const T weight = exp2_of(-squared(e));
    const T slope = SCALAR ? illum_factors[d] : illum_factors[d] * weight;
    const T size = magnitude(a[0]) + magnitude(a[1]) + magnitude(a[2]);
    const T steep = SCALAR ? guide_factors[d] * weight : slope * size;
    for (int c = 0; c < 3; ++c) {
      slope_o[c] += with_sign(slope, a[c]);
      slope_f[c] += steep * e[c];
    }
  }
  for (int c = 0; task.grad_illum.data && c < 3; ++c)
    narrow(slope_o[c], *const_cast<S*>(at<S>(task.grad_illum, corner.b, c, y, x)));
  if (!task.grad_guide.data) return;
  const T scale = T(-2 * sqrt(task.kappa / LOG2_E));
  T slope[3];
  for (int c = 0; c < 3; ++c) slope_f[c] *= scale;
  if constexpr (COLOR == Color::ycbcr) {
    from_ycbcr<T>(slope_f, slope);
  } else {
    for (int c = 0; c < 3; ++c) slope[c] = slope_f[c];
  }
  for (int c = 0; c < 3; ++c) {
    if constexpr (COLOR == Color::memory) {
      *const_cast<T*>(at<T>(task.grad_guide, corner.b, c, y, x)) = slope[c];
    } else {
      narrow(slope[c], *const_cast<S*>(at<S>(task.grad_guide, corner.b, c, y, x)));
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
  task.kappa = settings.kappa;
  task.across = tiles(task.sizes[3], TILE_COLUMNS);
  task.down = tiles(task.sizes[2], TILE_ROWS);
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
  return sizes[0] * tiles(sizes[2], TILE_ROWS) * tiles(sizes[3], TILE_COLUMNS);
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
