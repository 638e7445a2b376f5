#include "zerodce_tile.cuh"

namespace fastllie {
namespace {

using namespace zerodce;

// What is older knows no bfloat16 in its tensor cores. fastllie.ops asks for more; a build for an older
// architecture alone, on a newer chip, must not return what nobody wrote.
#define TENSOR_CORES (__CUDA_ARCH__ >= 800)

// Blocks of a multiprocessor at a time that the registers shall allow
constexpr int DCE_BLOCKS = 3;
// Shared memory of a multiprocessor from which on weights stay there: two blocks of the largest layer
constexpr int ROOMY = 160 << 10;

// The image around a tile, pixel by pixel: three channels and a zero. Two columns more than are neighbours:
// products of four reach one further, with weights of zero, but 0 times what is no number is not 0.
template <class F>
struct Image {
  static constexpr int WIDTH = NEAR_W + 2;
  alignas(8) F pixels[NEAR_H][WIDTH][4];
};

template <class F>
__device__ __forceinline__ void load(const Task& task, const Origin& origin, Image<F>& image) {
  const F* const x = static_cast<const F*>(task.x.data) + origin.b * task.x.strides[0];
  for (int item = threadIdx.x; item < NEAR_H * Image<F>::WIDTH; item += THREADS_OF_TILE) {
    const int i = item / Image<F>::WIDTH, j = item % Image<F>::WIDTH;
    int h = origin.top - 1 + i, w = origin.left - 1 + j;
    float values[4] = {};
    const bool outside = h < 0 || h >= task.height || w < 0 || w >= task.width;
    if (!task.zeros || !outside) {
      h = min(max(h, -task.around), task.height - 1 + task.around);
      w = min(max(w, -task.around), task.width - 1 + task.around);
#pragma unroll
      for (int c = 0; c < 3; ++c)
        values[c] = widen(x[c * task.x.strides[1] + h * task.x.strides[2] + w * task.x.strides[3]]);
    }
    uint2 words;
    F pack[4];
#pragma unroll
    for (int c = 0; c < 4; ++c) narrow(values[c], pack[c]);
    memcpy(&words, pack, sizeof words);
    *reinterpret_cast<uint2*>(image.pixels[i][j]) = words;
  }
}

// A product's 16 inputs are four neighbours of a row, of four channels: a lane has one neighbour of each of
// its two pixels.
template <class F>
__global__ void __launch_bounds__(THREADS_OF_TILE, DCE_BLOCKS)
    zerodce_first_kernel(const __grid_constant__ Task task) {
#if TENSOR_CORES
  __shared__ Image<F> image;
  const Origin origin(task, blockIdx.x);
  load(task, origin, image);
  const int lane = threadIdx.x % LANES;
  uint4 weights[3][2];
#pragma unroll
  for (int at = 0; at < 6; ++at)
    weights[at / 2][at % 2] =
        *reinterpret_cast<const uint4*>(static_cast<const F*>(task.weights) + (at * LANES + lane) * VECTOR);
  Sums sums;
  sums.begin(task.biases);
  __syncthreads();
#pragma unroll
  for (int y = 0; y < ROWS + 2; ++y) {
    const auto* const from = image.pixels[Sums::row() + y] + Sums::column() + lane / 4 + lane % 4;
    const uint2 first = *reinterpret_cast<const uint2*>(from),
                second = *reinterpret_cast<const uint2*>(from + 8);
    const unsigned pixels[4] = {first.x, second.x, first.y, second.y};
    sums.add<F>(y, pixels, weights);
  }
  sums.keep<F>(task, origin);
#else
  __trap();
#endif
}

template <class F, int SOURCE_COUNT, bool RESIDENT, bool LAST>
__global__ void __launch_bounds__(THREADS_OF_TILE, DCE_BLOCKS)
    zerodce_kernel(const __grid_constant__ Task task) {
#if TENSOR_CORES
  using Work = Layer<F, SOURCE_COUNT, RESIDENT>;
  extern __shared__ __align__(128) unsigned char memory[];
  Work(task, *reinterpret_cast<typename Work::Memory*>(memory)).template run<LAST>();
#else
  __trap();
#endif
}

// A device's multiprocessors, and their shared memory.
struct Processors {
  int count = 0, shared = 0;
  explicit Processors(int device) {
    check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
    check(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device));
  }
};

template <class F, int SOURCE_COUNT, bool RESIDENT, bool LAST>
void launch(const Task& task, const Processors& processors, cudaStream_t stream) {
  constexpr int bytes = sizeof(Space<F, SOURCE_COUNT, RESIDENT>);
  static_assert(RESIDENT || bytes <= 48 << 10, "two blocks where a multiprocessor has 100 KiB");
  const auto kernel = zerodce_kernel<F, SOURCE_COUNT, RESIDENT, LAST>;
  // more than the 48 KiB that are granted unasked
  if (RESIDENT) check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  // a kilobyte of each block is the system's
  const int places = processors.count * min(DCE_BLOCKS, processors.shared / (bytes + 1024));
  const unsigned blocks = min(task.tiles, static_cast<unsigned>(max(1, places)));
  kernel<<<blocks, THREADS_OF_TILE, bytes, stream>>>(task);
  check(cudaGetLastError());
}

template <class F, int SOURCE_COUNT, bool LAST>
void launch_layer(const Task& task, const Processors& processors, cudaStream_t stream) {
  if (processors.shared >= ROOMY)
    launch<F, SOURCE_COUNT, true, LAST>(task, processors, stream);
  else
    launch<F, SOURCE_COUNT, false, LAST>(task, processors, stream);
}

Task task_of(const ZeroDceMatrices& network, int layer) {
  const auto features = [&](int l) {
    const int64_t margin = network.zeros ? 0 : LAYERS - l;
    return Features{l < LAYERS ? network.features[l - 1] : nullptr, static_cast<int>(margin),
                    static_cast<int>(network.sizes[2] + 2 * margin),
                    static_cast<int>(network.sizes[3] + 2 * margin)};
  };
  Task task{};
  task.x = network.x;
  task.out = network.out;
  task.height = static_cast<int>(network.sizes[2]);
  task.width = static_cast<int>(network.sizes[3]);
  task.around = static_cast<int>(network.around);
  task.zeros = network.zeros;
  task.biases = network.biases + (layer - 1) * CHANNELS;
  // both types have two bytes
  task.weights = static_cast<const uint16_t*>(network.matrices) +
                 (layer == 1 ? 0 : FIRST_WEIGHTS + BEFORE[layer - 1] * WEIGHTS);
  for (int s = 0; s < 2 && layer > 1; ++s)
    if (SOURCES[layer - 2][s]) task.sources[s] = features(SOURCES[layer - 2][s]);
  task.to = features(layer);
  const int64_t tiles_y = tiles(task.to.rows, TILE_H), tiles_x = tiles(task.to.columns, TILE_W);
  if (network.sizes[0] * tiles_y * tiles_x > 0x7fffffff)
    throw std::runtime_error("CUDA: more pixels than a launch can take");
  task.tiles_y = static_cast<unsigned>(tiles_y);
  task.tiles_x = static_cast<unsigned>(tiles_x);
  task.tiles = static_cast<unsigned>(network.sizes[0] * tiles_y * tiles_x);
  return task;
}

template <class F>
void launch_layers(const ZeroDceMatrices& network, const Processors& processors, cudaStream_t stream) {
  const Task first = task_of(network, 1);
  zerodce_first_kernel<F><<<first.tiles, THREADS_OF_TILE, 0, stream>>>(first);
  check(cudaGetLastError());
  for (int layer = 2; layer <= 4; ++layer)
    launch_layer<F, 1, false>(task_of(network, layer), processors, stream);
  for (int layer = 5; layer <= 6; ++layer)
    launch_layer<F, 2, false>(task_of(network, layer), processors, stream);
  launch_layer<F, 2, true>(task_of(network, 7), processors, stream);
}

}  // namespace

void zerodce_forward_cuda(const ZeroDceMatrices& network, int device, void* stream) {
  const OnDevice guard(device);
  const Processors processors(device);
  const auto s = static_cast<cudaStream_t>(stream);
  if (network.x.dtype == Dtype::bf16)
    launch_layers<__nv_bfloat16>(network, processors, s);
  else
    launch_layers<__half>(network, processors, s);
}

}  // namespace fastllie
