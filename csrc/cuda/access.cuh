// What the CUDA operators share: storage types, packs of pixels, where an element lies, errors and devices.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "curve.h"
#include "fastllie.h"

namespace fastllie {
namespace {

constexpr int THREADS = 256;

// Pixels of a thread where rows are contiguous: 16 bytes of float32 or float64. Eight of 16-bit types would
// not leave their states in registers.
template <class X>
constexpr int PIXELS = sizeof(X) == 8 ? 2 : 4;

// Storage types, and the type that the arithmetic uses for them.
template <class S>
struct Wide {
  using type = float;
};
template <>
struct Wide<double> {
  using type = double;
};

__device__ __forceinline__ float widen(float v) { return v; }
__device__ __forceinline__ double widen(double v) { return v; }
__device__ __forceinline__ float widen(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ __forceinline__ float widen(__half v) { return __half2float(v); }
__device__ __forceinline__ void narrow(float v, float& to) { to = v; }
__device__ __forceinline__ void narrow(double v, double& to) { to = v; }
__device__ __forceinline__ void narrow(float v, __nv_bfloat16& to) { to = __float2bfloat16_rn(v); }
__device__ __forceinline__ void narrow(float v, __half& to) { to = __float2half_rn(v); }
__device__ __forceinline__ float tanh_of(float z) { return tanh_rational(z, 1.0f); }
__device__ __forceinline__ double tanh_of(double z) { return ::tanh(z); }

template <class S, int N>
struct alignas(sizeof(S) * N) Pack {
  S values[N];
};

template <int N, class S, class T>
__device__ __forceinline__ void read(const S* from, T (&to)[N]) {
  const Pack<S, N> pack = *reinterpret_cast<const Pack<S, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = widen(pack.values[i]);
}

template <int N, class S, class T>
__device__ __forceinline__ void write(S* to, const T (&from)[N]) {
  Pack<S, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) narrow(from[i], pack.values[i]);
  *reinterpret_cast<Pack<S, N>*>(to) = pack;
}

struct Grid {
  int64_t batch, channels, height, width;
  bool interleaved;  // channels lie side by side: neighbouring threads take neighbouring channels
};

// Where the image's element (or pack of pixels) number i lies, in each tensor.
struct Place {
  int64_t b, c, h, w;
  __device__ Place(const Grid& grid, int64_t i) {
    if (grid.interleaved) {
      c = i % grid.channels;
      i /= grid.channels;
    }
    w = i % grid.width;
    i /= grid.width;
    h = i % grid.height;
    i /= grid.height;
    if (!grid.interleaved) {
      c = i % grid.channels;
      i /= grid.channels;
    }
    b = i;
  }
  template <class S>
  __device__ S* in(const View& v, int pixels) const {
    const int64_t offset = b * v.strides[0] + c * v.strides[1] + h * v.strides[2] + w * pixels * v.strides[3];
    return static_cast<S*>(v.data) + offset;
  }
};

template <class S>
__device__ __forceinline__ const S* at(const View& v, int64_t b, int64_t c, int64_t y, int64_t x) {
  return static_cast<const S*>(v.data) + b * v.strides[0] + c * v.strides[1] + y * v.strides[2] +
         x * v.strides[3];
}

// Tiles that cover so many pixels.
inline int64_t tiles(int64_t pixels, int tile) { return (pixels + tile - 1) / tile; }

inline void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status));
}

inline bool rows_adjoin(const View& v, int64_t width) {
  return !v.data || v.strides[2] == width * v.strides[3];
}

inline bool packs(const View& v, int64_t bytes, int pixels) {
  if (!v.data) return true;
  bool whole = v.strides[3] == 1 && reinterpret_cast<uintptr_t>(v.data) % (bytes * pixels) == 0;
  for (int dim = 0; dim < 3; ++dim) whole = whole && v.strides[dim] % pixels == 0;
  return whole;
}

// Selects the device of the tensors for the time of one launch.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    check(cudaGetDevice(&before_));
    if (device != before_) check(cudaSetDevice(device));
    changed_ = device != before_;
  }
  ~OnDevice() {
    if (changed_) cudaSetDevice(before_);
  }

 private:
  int before_ = 0;
  bool changed_ = false;
};

// Threads of a launch over so many elements.
inline dim3 blocks_for(int64_t total) {
  const int64_t blocks = (total + THREADS - 1) / THREADS;
  return dim3(static_cast<unsigned>(blocks < 0x7fffffff ? blocks : 0x7fffffff));
}

}  // namespace
}  // namespace fastllie
