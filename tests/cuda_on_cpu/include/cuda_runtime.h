// The part of CUDA's language and runtime that the kernels use, for a C++ compiler: see ../README.md.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

#define __CUDA_ARCH__ 900
#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorInvalidValue, cudaErrorInvalidDevice, cudaErrorLaunchFailure };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount, cudaDevAttrMaxSharedMemoryPerMultiprocessor };

cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t);
cudaError_t cudaGetDevice(int*);
cudaError_t cudaSetDevice(int);
cudaError_t cudaDeviceGetAttribute(int*, cudaDeviceAttr, int);

namespace emulator {

struct Configuration {  // in the order of <<<...>>>
  dim3 grid, block;
  size_t shared = 0;
  cudaStream_t stream = nullptr;
};

// Of the thread that runs
struct Place {
  uint3 thread, block;
  dim3 threads, blocks;
};
extern Place place;

void fail(const std::string& what);  // ends the launch
void launch(const char* kernel, const void* function, const Configuration&, void (*run)(void*),
            void* context);
void shared_variable(void* at, size_t bytes);
unsigned char* dynamic_shared();
void set_dynamic_shared(const void* function, int bytes);
void barrier(int line);
void copy_async(void* to, const void* from, size_t bytes, size_t zeros);
void commit_copies();
void wait_for_copies(size_t groups);
unsigned lane();
void load_matrices(unsigned (&to)[4], const void* row);
// What each lane holds, in float32: pairs of the left's four registers, and of the right's two
void multiply_matrices(float (&sums)[4], const float (&left)[4][2], const float (&right)[2][2]);

// The lanes of a warp come together, and what each brings is seen by all: 64 bytes a lane.
using Brought = const unsigned char (*)[64];
Brought meet(unsigned mask, const char* what, const void* brought, size_t bytes, bool orders_memory = false);

template <class T>
T of_lane(Brought brought, unsigned lane) {
  T value;
  std::memcpy(&value, brought[lane], sizeof(T));
  return value;
}

template <class T>
T shuffle(unsigned mask, const char* what, T value, int from, int width) {
  const Brought brought = meet(mask, what, &value, sizeof value);
  const int first = int(lane()) / width * width;
  return from < first || from >= first + width ? value : of_lane<T>(brought, unsigned(from));
}

template <class... Parameters>
struct Kernel {
  const char* name;
  Configuration configuration;
  void (*function)(Parameters...);

  template <class... Arguments>
  void operator()(const Arguments&... arguments) const {
    const auto body = [&] { function(arguments...); };
    launch(
        name, reinterpret_cast<const void*>(function), configuration,
        [](void* context) { (*static_cast<decltype(body)*>(context))(); },
        const_cast<void*>(static_cast<const void*>(&body)));
  }
};

// kernel<<<grid, block, ...>>> in C++
template <class... Parameters>
Kernel<Parameters...> configured(const char* name, Configuration configuration,
                                 void (*function)(Parameters...)) {
  return {name, configuration, function};
}

}  // namespace emulator

#define threadIdx (emulator::place.thread)
#define blockIdx (emulator::place.block)
#define blockDim (emulator::place.threads)
#define gridDim (emulator::place.blocks)

#define __syncthreads() emulator::barrier(__LINE__)
inline void __syncwarp(unsigned mask = 0xffffffff) { emulator::meet(mask, "__syncwarp", nullptr, 0, true); }

template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  const int first = int(emulator::lane()) / width * width;
  return emulator::shuffle(mask, "__shfl_sync", value, first + from % width, width);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
  return emulator::shuffle(mask, "__shfl_up_sync", value, int(emulator::lane()) - int(by), width);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
  return emulator::shuffle(mask, "__shfl_down_sync", value, int(emulator::lane() + by), width);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int by, int width = 32) {
  return emulator::shuffle(mask, "__shfl_xor_sync", value, int(emulator::lane()) ^ by, width);
}

template <class Function>
cudaError_t cudaFuncSetAttribute(Function* function, cudaFuncAttribute, int bytes) {
  emulator::set_dynamic_shared(reinterpret_cast<const void*>(function), bytes);
  return cudaGetLastError();
}

using std::max;
using std::min;
template <class T>
void __stcs(T* at, T value) {
  *at = value;
}
// each saturates, and a NaN becomes 0
inline float __saturatef(float v) { return std::fmin(std::fmax(v, 0.0f), 1.0f); }
inline int __float2int_rn(float v) {
  if (v != v) return 0;
  const float r = std::nearbyint(v);
  return r >= 2147483648.0f ? INT32_MAX : r < -2147483648.0f ? INT32_MIN : static_cast<int>(r);
}
inline int __float2int_rz(float v) {
  if (v != v) return 0;
  return v >= 2147483648.0f ? INT32_MAX : v < -2147483648.0f ? INT32_MIN : static_cast<int>(v);
}
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
