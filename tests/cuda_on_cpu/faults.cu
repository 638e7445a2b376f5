// Kernels with a fault each, and the same without it: what the emulator and its meter have to tell apart.
#include <cuda_pipeline_primitives.h>
#include <cuda_runtime.h>

namespace {

constexpr int THREADS = 64;

template <bool RIGHT>
__global__ void reads_a_neighbour(float* data) {
  __shared__ float held[THREADS];
  held[threadIdx.x] = data[threadIdx.x];
  if (RIGHT) __syncthreads();
  data[threadIdx.x] = held[(threadIdx.x + 33) % THREADS];
}

template <bool RIGHT>
__global__ void reads_in_its_warp(float* data) {
  __shared__ float held[THREADS];
  held[threadIdx.x] = data[threadIdx.x];
  if (RIGHT) __syncwarp();
  data[threadIdx.x] = held[threadIdx.x ^ 1];
}

template <bool RIGHT>
__global__ void writes_what_a_warp_reads(float* data) {
  __shared__ float held[THREADS];
  held[threadIdx.x] = data[threadIdx.x];
  __syncthreads();
  const float first = held[0];
  if (RIGHT) __syncthreads();
  if (threadIdx.x == 5) held[0] = first + 1;
  data[threadIdx.x] = first;
}

template <bool RIGHT>
__global__ void blocks_share_an_element(float* data) {
  if (threadIdx.x == 0) data[RIGHT ? blockIdx.x : 0] = float(blockIdx.x);
}

template <bool RIGHT>
__global__ void waits_in_a_branch(float* data) {
  if (RIGHT || threadIdx.x < 32) __syncthreads();
  data[threadIdx.x] = 1;
}

template <bool RIGHT>
__global__ void waits_at_two_places(float* data) {
  if (RIGHT || threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
  data[threadIdx.x] = 1;
}

template <bool RIGHT>
__global__ void shuffles_with_half_a_warp(float* data) {
  float value = data[threadIdx.x];
  if (RIGHT || threadIdx.x % 32 < 16) value = __shfl_xor_sync(0xffffffff, value, 1);
  data[threadIdx.x] = value;
}

template <bool RIGHT>
__global__ void does_not_wait_for_a_copy(float* data) {
  __shared__ float held[THREADS];
  __pipeline_memcpy_async(&held[threadIdx.x], &data[threadIdx.x], 4);
  __pipeline_commit();
  if (RIGHT) __pipeline_wait_prior(0);
  data[threadIdx.x] = held[threadIdx.x];
}

template <bool RIGHT>
__global__ void reads_what_nobody_wrote(float* data) {
  __shared__ float held[THREADS];
  if (RIGHT || threadIdx.x != 7) held[threadIdx.x] = 1;
  data[threadIdx.x] = held[threadIdx.x];
}

template <bool RIGHT>
__global__ void reads_with_gaps(float* data) {
  data[THREADS * 8 + threadIdx.x] = data[RIGHT ? threadIdx.x : threadIdx.x * 8];
}

template <bool RIGHT>
__global__ void meets_at_a_bank(float* data) {
  __shared__ float held[THREADS * 33];
  const int row = threadIdx.x * (RIGHT ? 33 : 32);
  held[row] = data[threadIdx.x];
  data[threadIdx.x] = held[row];
}

template <bool RIGHT>
__global__ void parts_at_a_branch(float* data) {
  if (threadIdx.x % 32 < (RIGHT ? 32 : 16)) data[threadIdx.x] = data[threadIdx.x] * 2;
}

template <bool RIGHT>
__global__ void reads_a_pack_askew(float* data) {
  const auto* const from = reinterpret_cast<const uint2*>(data + THREADS + (RIGHT ? 0 : 1));
  const uint2 pack = from[threadIdx.x];
  data[threadIdx.x] = float(pack.x + pack.y);
}

struct Fault {
  const char* name;
  void (*wrong)(float*);
  void (*right)(float*);
};
#define FAULT(name) {#name, name<false>, name<true>}
const Fault FAULTS[] = {
    FAULT(reads_a_neighbour),         FAULT(reads_in_its_warp),        FAULT(writes_what_a_warp_reads),
    FAULT(blocks_share_an_element),   FAULT(waits_in_a_branch),        FAULT(waits_at_two_places),
    FAULT(shuffles_with_half_a_warp), FAULT(does_not_wait_for_a_copy), FAULT(reads_what_nobody_wrote),
    FAULT(reads_with_gaps),           FAULT(meets_at_a_bank),          FAULT(parts_at_a_branch),
    FAULT(reads_a_pack_askew),
};

}  // namespace

// Runs one of them on two blocks; says what the launch's error is.
extern "C" __attribute__((visibility("default"))) const char* run_fault(const char* name, int right,
                                                                        float* data) {
  for (const Fault& fault : FAULTS) {
    if (std::strcmp(fault.name, name)) continue;
    const auto kernel = right ? fault.right : fault.wrong;
    kernel<<<std::strcmp(name, "blocks_share_an_element") ? 1 : 2, THREADS>>>(data);
  }
  return cudaGetErrorString(cudaGetLastError());
}

// A launch that no device takes
extern "C" __attribute__((visibility("default"))) const char* run_too_much(int threads, int shared) {
  const auto kernel = parts_at_a_branch<true>;
  kernel<<<1, threads, shared>>>(nullptr);
  return cudaGetErrorString(cudaGetLastError());
}
