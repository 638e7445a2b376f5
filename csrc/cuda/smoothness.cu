#include "smoothness_tile.cuh"

namespace fastllie {
namespace {

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
          T exponent = 0;
          if constexpr (!SCALAR) exponent_of(task, d, exponent);
          const Pair<T> pair(own[r], other, exponent);
          if constexpr (SCALAR) {
            // below the image there are no others; what is beside it is left out at last
            const bool there = in_image(other);
            sums[d] += there ? pair.weight : T(0);
            sums[OFFSETS + d] += there ? pair.size : T(0);
          } else {
            sums[0] += pair.weight * pair.size;
          }
        }
      }
    }
  }
  const bool mine = !SCALAR || corner.left + threadIdx.x % 32 < task.sizes[3];
  double wide[COUNT];
#pragma unroll
  for (int i = 0; i < COUNT; ++i) wide[i] = mine ? double(sums[i]) : 0;
  const double sum = sums_of_block(wide);
  if (threadIdx.x >= COUNT) return;
  const int d = int(threadIdx.x) % OFFSETS;
  const double share = !SCALAR ? task.shares[0] : threadIdx.x < OFFSETS ? task.shares[d] : task.shares[d] / 3;
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
  const T factor = T(2 * *task.grad * (SCALAR ? 1 : task.shares[0])),
          steepness = T(-2 * task.scale / LOG2_E) * factor;
  for (int part = 0; part < PARTS<T>; ++part) {
    // before the last part's pixels are overwritten
    if (part) __syncthreads();
    const int64_t top = corner.top + part * WARPS * ROWS<T>;
    hold<COLOR, S>(task, corner, top, held);
    const int line = threadIdx.x / 32 * ROWS<T>, s = threadIdx.x % 32;
    Pixel<T> own[ROWS<T>];
    // of the illuminations the slopes up, and all of them: those down are the rest
    T slope_o[ROWS<T>][3] = {}, slope_f[ROWS<T>][3] = {}, slopes[ROWS<T>] = {};
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
          T slope, steep, exponent = 0;
          if constexpr (!SCALAR) exponent_of(task, d, exponent);
          const Pair<T> pair(own[r], other, exponent);
          if constexpr (SCALAR) {
            slope = in_image(other) ? illum_factors[d] : T(0);
            steep = guide_factors[d] * pair.weight;
          } else {
            slope = pair.weight;
            steep = slope * pair.size;
          }
          if constexpr (!SCALAR) slopes[r] += slope;
#pragma unroll
          for (int c = 0; c < 3; ++c) {
            const T above = above_zero(pair.a[c]);
            slope_o[r][c] += slope * (SCALAR ? 2 * above - 1 : above);
            slope_f[r][c] += steep * pair.e[c];
          }
        }
      }
    }
#pragma unroll
    for (int r = 0; r < ROWS<T>; ++r) {
      for (int c = 0; c < 3; ++c) {
        slope_o[r][c] = factor * (SCALAR ? slope_o[r][c] : 2 * slope_o[r][c] - slopes[r]);
        slope_f[r][c] *= steepness;
      }
      const int64_t y = top + line + r;
      if (y < task.sizes[2] && x < task.sizes[3])
        keep<S, COLOR>(task, corner.b, y, x, slope_o[r], slope_f[r]);
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
    task.exponents[d] = log2(task.shares[d] / task.shares[0]);
    task.narrow_exponents[d] = float(task.exponents[d]);
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
