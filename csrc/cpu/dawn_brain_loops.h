// The loops of dawn's brain. Included once for each instruction set, inside that set's namespace, after
// dawn_loops.h.
//
// Few pixels and many channels: channels lie side by side, vectors along them.

constexpr int64_t DAWN_TOGETHER = 4;  // pixels whose sums share each weight that is loaded

// Adds `taps` times the weights of `read` inputs to the sums of four pixels, VECTORS vectors of outputs each.
// Not inlined: beside other code GCC would keep the sums in memory.
template <int VECTORS>
static __attribute__((noinline)) void dawn_gathered(const float* const* pixels, int64_t taps, int64_t read,
                                                    const float* weights, int64_t outputs,
                                                    f32v (&sums)[DAWN_TOGETHER][VECTORS]) {
  constexpr int N = LANES<float>;
  f32v own[DAWN_TOGETHER][VECTORS];
#pragma GCC unroll 4
  for (int k = 0; k < DAWN_TOGETHER; ++k)
#pragma GCC unroll 4
    for (int n = 0; n < VECTORS; ++n) own[k][n] = sums[k][n];
  for (int64_t tap = 0; tap < taps; ++tap) {
    const float* const* const at = pixels + tap * DAWN_TOGETHER;
    for (int64_t i = 0; i < read; ++i, weights += outputs) {
      f32v weight[VECTORS];
#pragma GCC unroll 4
      for (int n = 0; n < VECTORS; ++n) weight[n] = held(load<f32v>(weights + n * N));
#pragma GCC unroll 4
      for (int k = 0; k < DAWN_TOGETHER; ++k) {
        const f32v v = held(broadcast<f32v>(at[k][i]));
#pragma GCC unroll 4
        for (int n = 0; n < VECTORS; ++n) own[k][n] += v * weight[n];
      }
    }
  }
#pragma GCC unroll 4
  for (int k = 0; k < DAWN_TOGETHER; ++k)
#pragma GCC unroll 4
    for (int n = 0; n < VECTORS; ++n) sums[k][n] = own[k][n];
}

// Rows of a layer. end(pixel, channel, sum) takes a vector of the result.
template <int LAYER, class End>
static void dawn_layer_rows(const float* from, const float* weights, int64_t begin, int64_t stop,
                            const End& end) {
  constexpr DawnLayer layer = DAWN_LAYERS[LAYER];
  constexpr int N = LANES<float>;
#if defined(FASTLLIE_AVX512)
  constexpr int VECTORS = layer.outputs / N;  // 16 of 32 registers at most
#else
  constexpr int VECTORS = 2;  // 8 of 16
#endif
  static_assert(layer.outputs % (VECTORS * N) == 0 && layer.columns % DAWN_TOGETHER == 0);
  constexpr int64_t height = layer.rows * layer.stride, width = layer.columns * layer.stride;
  constexpr int64_t TAPS = layer.side * layer.side;
  const auto within = [](int64_t i, int64_t size) { return i < 0 ? 0 : smaller(i, size - 1); };
  const float* const bias = weights + TAPS * layer.read * layer.outputs;
  for (int64_t r = begin; r < stop; ++r)
    for (int64_t w = 0; w < layer.columns; w += DAWN_TOGETHER) {
      const float* pixels[TAPS * DAWN_TOGETHER];
      for (int64_t tap = 0; tap < TAPS; ++tap) {
        const int64_t line = within(r * layer.stride + tap / layer.side - layer.side / 2, height);
        for (int64_t k = 0; k < DAWN_TOGETHER; ++k) {
          const int64_t column = (w + k) * layer.stride + tap % layer.side - layer.side / 2;
          pixels[tap * DAWN_TOGETHER + k] = from + (line * width + within(column, width)) * layer.inputs;
        }
      }
      for (int64_t o = 0; o < layer.outputs; o += VECTORS * N) {
        f32v sums[DAWN_TOGETHER][VECTORS];
        for (int k = 0; k < DAWN_TOGETHER; ++k)
          for (int n = 0; n < VECTORS; ++n) sums[k][n] = load<f32v>(bias + o + n * N);
        dawn_gathered<VECTORS>(pixels, TAPS, layer.read, weights + o, layer.outputs, sums);
        for (int k = 0; k < DAWN_TOGETHER; ++k)
          for (int n = 0; n < VECTORS; ++n) end(r * layer.columns + w + k, o + n * N, sums[k][n]);
      }
    }
}

// Rows of conv1 to conv6: max(0, sum), and the layer's input on top of it where RESIDUAL.
template <int LAYER, bool RESIDUAL>
static void dawn_brain_rows(const DawnBrainTask& task, int64_t begin, int64_t stop) {
  const float* const from = LAYER ? task.planes[LAYER - 1] : task.seen;
  float* const to = task.planes[LAYER];
  constexpr int64_t outputs = DAWN_LAYERS[LAYER].outputs;
  dawn_layer_rows<LAYER>(from, task.weights[LAYER], begin, stop, [&](int64_t pixel, int64_t o, f32v sum) {
    f32v v = Bounds::at_least(sum, f32v{});
    if constexpr (RESIDUAL) v += load<f32v>(from + pixel * outputs + o);
    store(to + pixel * outputs + o, v, false);
  });
}

// Rows of the grid: alphas in (-1, 1), black levels of at most half of the mean.
static void dawn_grid_rows(const DawnBrainTask& task, int64_t begin, int64_t stop) {
  constexpr int64_t CELLS = DAWN_ROWS * DAWN_COLUMNS, OUTPUTS = DAWN_PLANES * DAWN_LUMAS;
  float* const grid = task.brain.out + task.image * OUTPUTS * CELLS;
  const float blackest = 0.5f * task.brain.means[task.image];
  const f32v one = broadcast<f32v>(1.0f);
  dawn_layer_rows<6>(task.planes[5], task.weights[6], begin, stop, [&](int64_t cell, int64_t o, f32v sum) {
    const f32v v = tanh_of(sum, one);
    for (int i = 0; i < LANES<float>; ++i)
      grid[(o + i) * CELLS + cell] = v[i] * (o + i < OUTPUTS / 2 ? 1.0f : blackest);
  });
}

// Rows of the thumbnail in both scales: its root, and its share beside the mean.
static void dawn_see_rows(const DawnBrainTask& task, int64_t begin, int64_t stop) {
  constexpr int64_t ALL = DAWN_THUMB_ROWS * DAWN_THUMB_COLUMNS, PITCH = DAWN_LAYERS[0].inputs;
  const float* const thumb = task.brain.thumbs + task.image * 3 * ALL;
  const float mean = task.brain.means[task.image];
  for (int64_t i = begin * DAWN_THUMB_COLUMNS; i < stop * DAWN_THUMB_COLUMNS; ++i) {
    float* const to = task.seen + i * PITCH;
    for (int c = 0; c < 3; ++c) {
      const float v = thumb[c * ALL + i];
      to[c] = std::sqrt(v < 1e-4f ? 1e-4f : v);
      to[3 + c] = v / (v + mean);
    }
    task.values[i] = thumb[i] * 0.299f + thumb[ALL + i] * 0.587f + thumb[2 * ALL + i] * 0.114f;
  }
}

// sums = bias + inputs times weights `[inputs, outputs]`, the bias behind them; returns what lies behind
// both.
static const float* dawn_dense(const float* from, int64_t inputs, int64_t outputs, const float* weights,
                               float* sums) {
  for (int64_t o = 0; o < outputs; ++o) sums[o] = weights[inputs * outputs + o];
  for (int64_t i = 0; i < inputs; ++i)
    for (int64_t o = 0; o < outputs; ++o) sums[o] += from[i] * weights[i * outputs + o];
  return weights + (inputs + 1) * outputs;
}

// Numbers about the whole, each around one.
static void dawn_facts(const DawnBrainTask& task, float (&facts)[DAWN_FACTS]) {
  constexpr int64_t ALL = DAWN_THUMB_ROWS * DAWN_THUMB_COLUMNS;
  const DawnBrain& brain = task.brain;
  const float mean = brain.means[task.image];
  float* next = facts;
  *next++ = (std::log(mean) + 3) / 2;
  for (int c = 0; c < 3; ++c) {
    const float* const colour = brain.thumbs + (task.image * 3 + c) * ALL;
    double sum = 0;
    for (int64_t i = 0; i < ALL; ++i) sum += colour[i];
    const float share = float(sum / ALL) / mean;
    *next++ = (share > 3 ? 3 : share) - 1;
  }
  float *begin = task.values, *const end = task.values + ALL;
  for (const int64_t place : brain.places) {
    // what is below one place is never above the next
    std::nth_element(begin, task.values + place, end);
    begin = task.values + place;
    *next++ = std::log(*begin + 0.004f) / 2 + 1;
  }
  for (int i = 0; i < DAWN_NOISES; ++i)
    *next++ = std::log(brain.noises[task.image * DAWN_NOISES + i] + 1e-3f) / 2 + 2;
}

// What the whole picture says, added to every place of conv4's result.
static void dawn_whole(const DawnBrainTask& task) {
  constexpr int64_t CELLS = DAWN_ROWS * DAWN_COLUMNS;
  float facts[DAWN_FACTS], known[2 * DAWN_CHANNELS + DAWN_TOLD], hidden[DAWN_WHOLE], added[DAWN_CHANNELS];
  float *const means = known, *const most = known + DAWN_CHANNELS, *const told = most + DAWN_CHANNELS;
  float* const x = task.planes[3];
  for (int64_t c = 0; c < DAWN_CHANNELS; ++c) means[c] = 0, most[c] = x[c];
  for (int64_t cell = 0; cell < CELLS; ++cell)
    for (int64_t c = 0; c < DAWN_CHANNELS; ++c) {
      const float v = x[cell * DAWN_CHANNELS + c];
      means[c] += v;
      most[c] = v > most[c] ? v : most[c];
    }
  for (int64_t c = 0; c < DAWN_CHANNELS; ++c) means[c] /= CELLS;
  const auto rectify = [](float* values, int64_t count) {
    for (int64_t i = 0; i < count; ++i) values[i] = values[i] < 0 ? 0 : values[i];
  };
  dawn_facts(task, facts);
  const float* weights = dawn_dense(facts, DAWN_FACTS, DAWN_TOLD, task.dense, told);
  rectify(told, DAWN_TOLD);
  weights = dawn_dense(known, 2 * DAWN_CHANNELS + DAWN_TOLD, DAWN_WHOLE, weights, hidden);
  rectify(hidden, DAWN_WHOLE);
  dawn_dense(hidden, DAWN_WHOLE, DAWN_CHANNELS, weights, added);
  for (int64_t cell = 0; cell < CELLS; ++cell)
    for (int64_t c = 0; c < DAWN_CHANNELS; ++c) x[cell * DAWN_CHANNELS + c] += added[c];
  rectify(x, CELLS * DAWN_CHANNELS);
}

DawnBrainLoops dawn_brain_loops() {
  return {dawn_see_rows,
          {dawn_brain_rows<0, false>, dawn_brain_rows<1, false>, dawn_brain_rows<2, true>,
           dawn_brain_rows<3, false>, dawn_brain_rows<4, true>, dawn_brain_rows<5, true>, dawn_grid_rows},
          dawn_whole};
}
