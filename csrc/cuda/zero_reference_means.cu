#include "zero_reference_means.cuh"

namespace fastllie {
namespace {

// Adds up a piece of an image's parts, cells and patches, in an order that is always the same.
template <class T>
__global__ void __launch_bounds__(THREADS)
    sums_kernel(const __grid_constant__ MeansTask task, const __grid_constant__ Divisor across) {
  __shared__ double warps[SUMS][THREADS / WARP];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const int64_t b = blockIdx.x / task.pieces;
  const int64_t first = blockIdx.x % task.pieces * int64_t{THREADS} + threadIdx.x;
  const int64_t stride = task.pieces * int64_t{THREADS};
  double sums[SUMS] = {};
  for (int64_t i = first; i < task.units; i += stride) {
#pragma unroll
    for (int k = 0; k < PARTS; ++k) sums[k] += task.parts[(b * task.units + i) * PARTS + k];
  }
  const int64_t count = task.cells_down * int64_t{task.cells_across};
  const T* const cells = static_cast<const T*>(task.cells) + b * count;
  T spatial = 0, exposure = 0;
  for (int64_t i = first; i < count; i += stride) {
    const unsigned row = across.divide(unsigned(i));
    const int column = int(i) - int(row) * task.cells_across;
    spatial += steps_of<T>(cells, task.cells_down, task.cells_across, int(row), column);
  }
  const T* const patches = static_cast<const T*>(task.means_of_patches) + b * task.patches;
  for (int64_t i = first; i < task.patches; i += stride) {
    const T apart = patches[i] - T(task.level);
    exposure += apart * apart;
  }
  sums[PARTS] = double(spatial);
  sums[PARTS + 1] = double(exposure);
#pragma unroll
  for (int k = 0; k < SUMS; ++k) {
    const double sum = sum_of_lanes(sums[k], WARP);
    if (lane == 0) warps[k][warp] = sum;
  }
  __syncthreads();
  if (threadIdx.x >= SUMS) return;
  double sum = 0;
  for (int w = 0; w < THREADS / WARP; ++w) sum += warps[threadIdx.x][w];
  task.sums[blockIdx.x * int64_t{SUMS} + threadIdx.x] = sum;
}

// The means of the channels and the four losses: one block, whose warps take the images in turn.
template <class T>
__global__ void __launch_bounds__(THREADS) losses_kernel(const __grid_constant__ MeansTask task) {
  // differences of the maps, spatial consistency, colour constancy, exposure
  __shared__ double warps[4][THREADS / WARP];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  double losses[4] = {};
  for (int64_t b = warp; b < task.batch; b += THREADS / WARP) {
    double sums[SUMS] = {};
    for (int piece = lane; piece < task.pieces; piece += WARP) {
#pragma unroll
      for (int k = 0; k < SUMS; ++k) sums[k] += task.sums[(b * task.pieces + piece) * SUMS + k];
    }
#pragma unroll
    for (int k = 0; k < SUMS; ++k) sums[k] = sum_of_lanes(sums[k], WARP);
    double fourth = 0;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      const double apart = (sums[c] - sums[(c + 1) % 3]) / task.pixels;
      fourth += apart * apart * apart * apart;
      if (lane == c) task.means[b * 3 + c] = sums[c] / task.pixels;
    }
    losses[0] += sums[3] / task.vertical + sums[4] / task.horizontal;
    losses[1] += sums[5];
    losses[2] += sqrt(fourth);
    losses[3] += sums[6];
  }
  if (lane < 4) {
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (lane == k) warps[k][warp] = losses[k];
  }
  __syncthreads();
  if (threadIdx.x >= 4) return;
  double sum = 0;
  for (int w = 0; w < THREADS / WARP; ++w) sum += warps[threadIdx.x][w];
  const double batch = double(task.batch);
  const double counts[4] = {batch / 2, batch * task.cells_down * task.cells_across, batch,
                            batch * task.patches};
  double count = counts[0];
#pragma unroll
  for (int k = 1; k < 4; ++k) count = threadIdx.x == k ? counts[k] : count;
  static_cast<T*>(task.losses)[threadIdx.x] = T(sum / count);
}

template <class T>
void launch_means(const MeansTask& task, cudaStream_t stream) {
  const int64_t blocks = task.batch * task.pieces;
  if (blocks > 0x7fffffff) throw std::runtime_error("CUDA: more images than a launch can take");
  sums_kernel<T>
      <<<dim3(static_cast<unsigned>(blocks)), THREADS, 0, stream>>>(task, Divisor(task.cells_across));
  check(cudaGetLastError());
  losses_kernel<T><<<dim3(1), THREADS, 0, stream>>>(task);
  check(cudaGetLastError());
}

}  // namespace

void zero_reference_means(const MeansTask& task, bool float64, cudaStream_t stream) {
  float64 ? launch_means<double>(task, stream) : launch_means<float>(task, stream);
}

}  // namespace fastllie
