// What the instructions of tensor cores do, lane by lane: csrc/cuda/ptx.cuh, or what stands in for it.
#include "access.cuh"

namespace {

// A matrix of 16 x 16 as ldmatrix gives it to the lanes, its rows in any order in shared memory.
__global__ void loads(const uint16_t* matrix, unsigned* registers) {
  __shared__ uint4 memory[32];
  auto* const held = reinterpret_cast<uint16_t (*)[8]>(memory);
  const int lane = threadIdx.x, row = lane % 16, half = lane / 16, place = (lane * 5 + 3) % 32;
  for (int i = 0; i < 8; ++i) held[place][i] = matrix[row * 16 + half * 8 + i];
  __syncwarp();
  unsigned got[4];
  fastllie::load_matrices(got, held[place]);
  for (int i = 0; i < 4; ++i) registers[lane * 4 + i] = got[i];
}

template <class F>
__global__ void multiplies(const unsigned* left, const unsigned* right, float* sums) {
  const int lane = threadIdx.x;
  float own[4];
  unsigned pixels[4];
  for (int i = 0; i < 4; ++i) {
    own[i] = sums[lane * 4 + i];
    pixels[i] = left[lane * 4 + i];
  }
  fastllie::multiply_matrices<F>(own, pixels, right[lane * 2], right[lane * 2 + 1]);
  for (int i = 0; i < 4; ++i) sums[lane * 4 + i] = own[i];
}

}  // namespace

extern "C" {
__attribute__((visibility("default"))) void run_loads(const uint16_t* matrix, unsigned* registers) {
  loads<<<1, 32>>>(matrix, registers);
}
__attribute__((visibility("default"))) void run_multiplies(bool bfloat, const unsigned* left,
                                                           const unsigned* right, float* sums) {
  if (bfloat)
    multiplies<__nv_bfloat16><<<1, 32>>>(left, right, sums);
  else
    multiplies<__half><<<1, 32>>>(left, right, sums);
}
}
