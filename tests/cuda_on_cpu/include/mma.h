// Matrices of a warp, 16 x 16, as nvcuda::wmma has them. Which lane holds which element is unlike any GPU's:
// nobody may rely on it. What shared memory sees is what ldmatrix and stores of eight bytes do on a GPU.
#pragma once
#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "meter.h"

namespace nvcuda::wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
enum layout_t { mem_row_major };

template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment {
  static_assert(M == 16 && N == 16 && K == 16, "the only size there is here");
  float x[8];
};

inline float widened(__half v) { return __half2float(v); }
inline float widened(__nv_bfloat16 v) { return __bfloat162float(v); }

// Element i of a lane: row * 16 + column
inline int element(int i) { return int(emulator::lane()) * 8 + i; }

inline void check(const char* what, const void* at, int pitch, size_t size) {
  struct Matrix {
    const void* at;
    int pitch;
  } const own{at, pitch};
  const auto first = emulator::of_lane<Matrix>(emulator::meet(0xffffffff, what, &own, sizeof own), 0);
  if (first.at != at || first.pitch != pitch)
    emulator::fail(std::string(what) + ": lanes want different matrices");
  if (reinterpret_cast<uintptr_t>(at) % 32 || pitch * size % 16)
    emulator::fail(std::string(what) + ": a matrix that is not aligned");
}

template <class Use, class T>
__attribute__((noinline)) void load_matrix_sync(fragment<Use, 16, 16, 16, T, row_major>& to, const T* from,
                                                int pitch) {
  check("load_matrix_sync", from, pitch, sizeof(T));
  const int lane = int(emulator::lane());
  emulator::meter_access(__builtin_return_address(0), from + lane % 16 * pitch + lane / 16 * 8, 16, false);
  emulator::Unmetered unmetered;
  for (int i = 0; i < 8; ++i) to.x[i] = widened(from[element(i) / 16 * pitch + element(i) % 16]);
}

__attribute__((noinline)) inline void store_matrix_sync(float* to,
                                                        const fragment<accumulator, 16, 16, 16, float>& from,
                                                        int pitch, layout_t) {
  check("store_matrix_sync", to, pitch, sizeof(float));
  const int lane = int(emulator::lane());
  for (int part = 0; part < 4; ++part) {
    float* const at = to + (lane / 4 + part / 2 * 8) * pitch + lane % 4 * 2 + part % 2 * 8;
    emulator::meter_access(static_cast<char*>(__builtin_return_address(0)) + part, at, 8, true);
  }
  emulator::Unmetered unmetered;
  for (int i = 0; i < 8; ++i) to[element(i) / 16 * pitch + element(i) % 16] = from.x[i];
}

template <class Fragment>
void fill_fragment(Fragment& to, float value) {
  for (float& x : to.x) x = value;
}

template <class T>
void mma_sync(fragment<accumulator, 16, 16, 16, float>& d,
              const fragment<matrix_a, 16, 16, 16, T, row_major>& a,
              const fragment<matrix_b, 16, 16, 16, T, row_major>& b,
              const fragment<accumulator, 16, 16, 16, float>& c) {
  emulator::multiply(a.x, b.x, c.x, d.x);
}

}  // namespace nvcuda::wmma
