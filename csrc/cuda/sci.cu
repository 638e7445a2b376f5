#include "sci_walk.cuh"

namespace fastllie {
namespace {

// For a warp that walks down or up
template <class T>
__device__ __forceinline__ void prepare(const SciTask& task, Network<T>& network, bool down) {
  const auto* const weights = static_cast<const T*>(task.weights);
  const auto* const biases = static_cast<const T*>(task.biases);
  const int lane = threadIdx.x % LANES;
  if (lane < SCI_LAYERS * COLUMNS) {
    const int layer = lane / COLUMNS, o = lane % COLUMNS;
    const T bias = o < SCI_CHANNELS ? biases[layer * SCI_CHANNELS + o] : T(0);
    network.biases[layer][o] = layer == SCI_LAYERS - 1 ? bias * SCALE<T> : bias;
  }
#pragma unroll
  for (int layer = 0; layer < SCI_LAYERS; ++layer) {
    const T scale = layer == SCI_LAYERS - 1 ? SCALE<T> : T(1);
    if (lane >= TAP_ROW) continue;
    const int c = lane / SCI_TAPS, kx = lane / SCI_CHANNELS % 3, o = lane % SCI_CHANNELS;
    T taps[3] = {};
    if (c < SCI_CHANNELS) {
#pragma unroll
      for (int ky = 0; ky < 3; ++ky)
        taps[ky] = weights[((layer * SCI_CHANNELS + o) * SCI_CHANNELS + c) * SCI_TAPS + ky * 3 + kx] * scale;
    }
    network.taps[layer][FIRST][lane] = down ? taps[0] : taps[2];
    network.taps[layer][MIDDLE][lane] = taps[1];
    network.taps[layer][LAST][lane] = down ? taps[2] : taps[0];
    network.taps[layer][MIRRORED][lane] = taps[0] + taps[2];
    network.taps[layer][ALONE][lane] = taps[0] + taps[1] + taps[2];
  }
  __syncwarp();
}

template <class X, Order ORDER>
__global__ void __launch_bounds__(WARPS* LANES, SCI_BLOCKS) sci_kernel(const __grid_constant__ SciTask task) {
  using T = typename Wide<X>::type;
  __shared__ Space<T> spaces[WARPS];
  const int begin = static_cast<int>(blockIdx.x % task.strips) * KEPT - MARGIN;
  const unsigned above = blockIdx.x / task.strips;
  const int middle = (static_cast<int>(above % task.segments) * 2 + 1) * task.rows;
  const int64_t b = above / task.segments;
  prepare(task, spaces[threadIdx.x / LANES].network, threadIdx.x < LANES);
  if (begin < 0 || begin + STRIP > task.width)
    Walk<X, ORDER, true>(task, spaces, b, begin, middle).run();
  else
    Walk<X, ORDER, false>(task, spaces, b, begin, middle).run();
}

template <class X, Order ORDER>
void launch(const SciTask& task, cudaStream_t stream) {
  sci_kernel<X, ORDER><<<task.blocks, WARPS * LANES, 0, stream>>>(task);
  check(cudaGetLastError());
}

// Rows of a warp: as many as leave each place of the device one block, or the same number of them.
int rows_of(int64_t batch, int64_t height, int64_t strips, int device) {
  int processors = 0;
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  const int64_t places = int64_t{processors} * SCI_BLOCKS, columns = batch * strips;
  const int64_t rounds = (columns * tiles(height, 2 * MOST_ROWS) + places - 1) / places;
  const int64_t segments = max(int64_t{1}, rounds * places / columns);
  return static_cast<int>(max(int64_t{FEWEST_ROWS}, tiles(height, static_cast<int>(2 * segments))));
}

bool packed(const View& v, int64_t width) {
  const int bytes = v.dtype == Dtype::f32 ? 4 : v.dtype == Dtype::u8 ? 1 : 2;
  return width % COLUMNS == 0 && packs(v, bytes, COLUMNS);
}
bool interleaved(const View& v) { return v.strides[1] == 1 && v.strides[3] == SCI_CHANNELS; }

template <class X>
void launch(const SciTask& task, cudaStream_t stream) {
  if (packed(task.x, task.width) && packed(task.out, task.width))
    return launch<X, Order::packed>(task, stream);
  if (interleaved(task.x) && interleaved(task.out)) return launch<X, Order::interleaved>(task, stream);
  launch<X, Order::planar>(task, stream);
}

}  // namespace

void sci_forward_cuda(const View& x, const View& weights, const View& biases, const View& out, const Sci& sci,
                      int device, void* stream) {
  const OnDevice guard(device);
  const int64_t batch = sci.sizes[0], height = sci.sizes[2], width = sci.sizes[3];
  const int64_t strips = tiles(width, KEPT);
  const int rows = rows_of(batch, height, strips, device);
  const int64_t segments = tiles(height, 2 * rows), blocks = batch * strips * segments;
  if (blocks > 0x7fffffff) throw std::runtime_error("CUDA: more rows than a launch can take");
  const SciTask task{x,
                     out,
                     weights.data,
                     biases.data,
                     static_cast<unsigned>(blocks),
                     static_cast<unsigned>(strips),
                     static_cast<unsigned>(segments),
                     static_cast<int>(height),
                     static_cast<int>(width),
                     rows,
                     sci.residual,
                     sci.reflect};
  const auto s = static_cast<cudaStream_t>(stream);
  switch (x.dtype) {
    case Dtype::f64:
      return launch<double, Order::planar>(task, s);
    case Dtype::bf16:
      return launch<__nv_bfloat16>(task, s);
    case Dtype::f16:
      return launch<__half>(task, s);
    case Dtype::u8:
      return launch<uint8_t>(task, s);
    default:
      return launch<float>(task, s);
  }
}

}  // namespace fastllie
