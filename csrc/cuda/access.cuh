// What the CUDA operators share: storage types, packs of pixels, where an element lies, errors and devices.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstring>
#include <stdexcept>
#include <string>

#include "curve.h"
#include "fastllie.h"
#include "ptx.cuh"

namespace fastllie {
namespace {

constexpr int THREADS = 256;

// Pixels of a thread where they lie side by side: 16 bytes
template <class X>
constexpr int PIXELS = 16 / sizeof(X);

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
// Bytes are shares of 255
__device__ __forceinline__ float widen(uint8_t v) { return v * (1.0f / 255); }
__device__ __forceinline__ void narrow(float v, uint8_t& to) {
  to = static_cast<uint8_t>(__float2int_rn(v * 255.0f));
}
// In float32 arithmetic off by at most 5e-7: its division has no path for numbers that do not occur
__device__ __forceinline__ float tanh_of(float z) {
  float numerator, denominator;
  tanh_fraction(z, 1.0f, numerator, denominator);
  return numerator * reciprocal(denominator);
}
__device__ __forceinline__ double tanh_of(double z) { return ::tanh(z); }

// What a thread reads or writes at once
template <class S, int N>
struct alignas(sizeof(S) * N) Pack {
  S values[N];
};

template <int BYTES>
struct Words;
template <>
struct Words<16> {
  using type = uint4;
};
template <>
struct Words<8> {
  using type = uint2;
};
template <>
struct Words<4> {
  using type = unsigned;
};

// As words: of a structure the compiler would move one value at a time
template <int N, class S>
__device__ __forceinline__ Pack<S, N> load(const S* from) {
  Pack<S, N> pack;
  if constexpr (sizeof(pack) >= 4 && sizeof(pack) <= 16 && N > 1) {
    const auto words = *reinterpret_cast<const typename Words<sizeof(pack)>::type*>(from);
    memcpy(&pack, &words, sizeof pack);
  } else {
    pack = *reinterpret_cast<const Pack<S, N>*>(from);
  }
  return pack;
}

template <int N, class S, class T>
__device__ __forceinline__ void widen(const Pack<S, N>& from, T (&to)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = widen(from.values[i]);
}

template <int N, class S, class T>
__device__ __forceinline__ void read(const S* from, T (&to)[N]) {
  widen(load<N>(from), to);
}

template <int N, class S, class T>
__device__ __forceinline__ void write(S* to, const T (&from)[N]) {
  Pack<S, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) narrow(from[i], pack.values[i]);
  if constexpr (sizeof(pack) >= 4 && sizeof(pack) <= 16 && N > 1) {
    typename Words<sizeof(pack)>::type words;
    memcpy(&words, &pack, sizeof pack);
    // by name: of an assignment the compiler makes a store of each word
    __stcs(reinterpret_cast<decltype(words)*>(to), words);
  } else {
    *reinterpret_cast<Pack<S, N>*>(to) = pack;
  }
}

// Divides what is below 2^31 by a multiplication.
struct Divisor {
  unsigned by, factor, shift;
  Divisor() : Divisor(1) {}
  explicit Divisor(int64_t by) : by(static_cast<unsigned>(by)), shift(0) {
    while ((int64_t{1} << shift) < by) ++shift;
    factor = static_cast<unsigned>(((uint64_t{1} << shift) - by) * (uint64_t{1} << 32) / by + 1);
  }
  __device__ __forceinline__ unsigned divide(unsigned n) const { return (__umulhi(n, factor) + n) >> shift; }
};

// How the elements of an image, or its packs of pixels, are spread over blocks: each has a part of one row.
struct Rows {
  Divisor parts, height, channels;
  int64_t count, width;  // of rows; of elements or packs in one
  bool interleaved;      // a row holds the channels too: neighbouring threads take neighbouring channels

  Rows() = default;
  Rows(const Sizes& sizes, int pixels, bool interleaved) : interleaved(interleaved) {
    width = sizes[3] * (interleaved ? sizes[1] : 1) / pixels;
    count = sizes[0] * sizes[2] * (interleaved ? 1 : sizes[1]);
    parts = Divisor((width + THREADS - 1) / THREADS);
    height = Divisor(sizes[2]);
    channels = Divisor(sizes[1]);
  }
  dim3 blocks() const {
    const int64_t blocks = count * parts.by;
    if (blocks > 0x7fffffff) throw std::runtime_error("CUDA: more rows than a launch can take");
    return dim3(static_cast<unsigned>(blocks));
  }
};

// Where the thread's element, or pack of pixels, lies in each tensor.
struct Place {
  int64_t b, c, h, w;
  bool inside;
  __device__ __forceinline__ explicit Place(const Rows& rows) {
    const unsigned row = rows.parts.divide(blockIdx.x);
    const unsigned at = (blockIdx.x - row * rows.parts.by) * THREADS + threadIdx.x;
    const unsigned above = rows.height.divide(row);
    inside = at < rows.width;
    h = row - above * rows.height.by;
    if (rows.interleaved) {
      const unsigned pixel = rows.channels.divide(at);
      w = pixel;
      c = at - pixel * rows.channels.by;
      b = above;
    } else {
      const unsigned image = rows.channels.divide(above);
      w = at;
      c = above - image * rows.channels.by;
      b = image;
    }
  }
  // A pack of N pixels, which lie side by side where there are several
  template <int N, class S>
  __device__ __forceinline__ S* in(const View& v) const {
    const int64_t row = b * v.strides[0] + c * v.strides[1] + h * v.strides[2];
    return static_cast<S*>(v.data) + row + (N > 1 ? w * N : w * v.strides[3]);
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

// Whether a tensor fills its memory, in whatever order of its dimensions.
inline bool dense(const View& v, const Sizes& sizes) {
  int64_t filled = 1;
  for (int found = 0; found < 4; ++found) {
    for (int dim = 0; dim < 4; ++dim)
      if (sizes[dim] > 1 && v.strides[dim] == filled) {
        filled *= sizes[dim];
        break;
      }
  }
  return filled == sizes[0] * sizes[1] * sizes[2] * sizes[3];
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
