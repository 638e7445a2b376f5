// Runs the tiles of csrc/zerodce_tile.h on a CPU: one thread for a team, and float32 for tensor cores.
#include "zerodce_tile.h"

#include <cmath>
#include <cstdint>
#include <limits>

namespace {

using namespace fastllie;
using namespace fastllie::zerodce;

struct One {
  int thread = 0, threads = 1, warp = 0, warps = 1, lane = 0, lanes = 1;
  void barrier() const {}
  void warp_barrier() const {}
  void copy(float* to, const float* from) const {
    for (int k = 0; k < VECTOR; ++k) to[k] = from[k];
  }
  void copied() const {}
};

struct Plain {
  using F = float;
  struct A {
    float at[SIDE][SIDE];
  };
  using B = A;
  using Sums = A;

  static void load(A& to, const float* from, int pitch) {
    for (int i = 0; i < SIDE; ++i)
      for (int j = 0; j < SIDE; ++j) to.at[i][j] = from[i * pitch + j];
  }
  static void clear(Sums& sums) { sums = {}; }
  static void add(Sums& sums, const A& a, const B& b) {
    for (int i = 0; i < SIDE; ++i)
      for (int k = 0; k < SIDE; ++k)
        for (int j = 0; j < SIDE; ++j) sums.at[i][j] += a.at[i][k] * b.at[k][j];
  }
  static void store(float* to, const Sums& sums, int pitch) {
    for (int i = 0; i < SIDE; ++i)
      for (int j = 0; j < SIDE; ++j) to[i * pitch + j] = sums.at[i][j];
  }
  static void narrow(float v, float& to) { to = v; }
  static float widen(float v) { return v; }
};

template <int SOURCE_COUNT, bool ANEW, bool LAST>
void run(const Task& task) {
  using Work = Tile<Plain, One, SOURCE_COUNT, ANEW, LAST>;
  static typename Work::Space shared;
  // the last first: no tile may hang on what another has left behind
  for (int64_t tile = task.tiles() - 1; tile >= 0; --tile) {
    float* const all = reinterpret_cast<float*>(&shared);
    for (size_t i = 0; i < sizeof(shared) / sizeof(float); ++i)
      all[i] = std::numeric_limits<float>::quiet_NaN();
    Work(One(), task, shared, tile).run();
  }
}

}  // namespace

extern "C" void zerodce_forward(float* x, const int64_t* x_strides, float* out, const int64_t* out_strides,
                               const int64_t* sizes, int64_t around, int zeros, const float* matrices,
                               const float* biases, float* const* features) {
  ZeroDceMatrices network{
      {x, Dtype::f32, {}}, {out, Dtype::f32, {}}, {}, around, zeros != 0, matrices, biases, {}};
  for (int i = 0; i < 4; ++i) {
    network.x.strides[i] = x_strides[i];
    network.out.strides[i] = out_strides[i];
    network.sizes[i] = sizes[i];
  }
  for (int i = 0; i < 5; ++i) network.features[i] = features[i];
  run<1, true, false>(task_of(network, 2));
  run<1, false, false>(task_of(network, 3));
  run<1, false, false>(task_of(network, 4));
  run<2, false, false>(task_of(network, 5));
  run<2, false, false>(task_of(network, 6));
  run<2, true, true>(task_of(network, 7));
}
