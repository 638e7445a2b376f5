// Kernels to their products' factors, and the gradient of the kernels of 3 x 3 by Winograd's algorithm. The
// gradient's own result has 3 x 3 elements of sums over tiles of 4 x 4: what is A^T for a convolution becomes
// A here, and G^T leads back. Included once for each instruction set, inside that set's namespace, after
// convolution_loops.h.
//
// Every sum is made in the same order whatever the number of threads.

// Kernels of OUTPUT_BLOCK outputs and INPUT_BLOCK inputs, `[tap][input][output]`.
struct Taps {
  alignas(64) float values[9][INPUT_BLOCK][OUTPUT_BLOCK];
};

// Calls with(tap, input, output, offset into the kernels) for a block, the closest elements together.
template <class With>
FASTLLIE_INLINE void each_tap(const int64_t (&strides)[4], int64_t outputs, int64_t inputs,
                              const With& with) {
  for (int tap = 0; tap < 9; ++tap) {
    const int64_t at = tap / 3 * strides[2] + tap % 3 * strides[3];
    if (strides[0] < strides[1]) {
      for (int64_t i = 0; i < inputs; ++i)
        for (int64_t o = 0; o < outputs; ++o) with(tap, i, o, at + o * strides[0] + i * strides[1]);
    } else {
      for (int64_t o = 0; o < outputs; ++o)
        for (int64_t i = 0; i < inputs; ++i) with(tap, i, o, at + o * strides[0] + i * strides[1]);
    }
  }
}

// A kernel's values at the points, `pitch` apart. M = 0 leaves the taps as they are.
template <int M>
FASTLLIE_INLINE void transform_kernel(const Taps& taps, int64_t input, int64_t column, float* to,
                                      int64_t pitch) {
  const auto tap = [&](int i, int j) __attribute__((always_inline)) {
    return load<f32v>(&taps.values[3 * i + j][input][column]);
  };
  constexpr int TAPS = M ? M + 2 : 3;
  const auto point = [&](int i, int j, f32v v)
                         __attribute__((always_inline)) { store(to + (i * TAPS + j) * pitch, v, false); };
  if constexpr (M == 0) {
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 3; ++j) point(i, j, tap(i, j));
  } else {
    transform_tile<3, TAPS>(Winograd<M>::kernel, tap, point);
  }
}

template <int M>
static void pack_kernels(const KernelPacking& packing, int64_t from, int64_t to) {
  constexpr int64_t POINTS = M ? (M + 2) * (M + 2) : 9;
  const int64_t groups = (packing.inputs + INPUT_BLOCK - 1) / INPUT_BLOCK;
  Taps taps;
  __builtin_memset(&taps, 0, sizeof taps);
  for (int64_t unit = from; unit < to; ++unit) {
    const int64_t block = unit / groups, output = block * OUTPUT_BLOCK, input = unit % groups * INPUT_BLOCK;
    const int64_t outputs = smaller(OUTPUT_BLOCK, packing.outputs - output);
    const int64_t inputs = smaller(INPUT_BLOCK, packing.inputs - input);
    if (outputs < OUTPUT_BLOCK) __builtin_memset(&taps, 0, sizeof taps);
    const float* const start = packing.kernels + output * packing.strides[0] + input * packing.strides[1];
    each_tap(packing.strides, outputs, inputs, [&](int tap, int64_t i, int64_t o, int64_t at) {
      taps.values[packing.turned ? 8 - tap : tap][i][o] = start[at];
    });
    const int64_t pitch = packing.inputs * OUTPUT_BLOCK;
    for (int64_t i = 0; i < inputs; ++i) {
      float* const place = packing.to + block * POINTS * pitch + (input + i) * OUTPUT_BLOCK;
      for (int64_t c = 0; c < OUTPUT_BLOCK; c += LANES<float>)
        transform_kernel<M>(taps, i, c, place + c, pitch);
    }
  }
}

KernelPackingLoop kernel_packing_loop() {
  return [](const KernelPacking& packing, int64_t from, int64_t to) {
    switch (packing.arithmetic) {
      case Arithmetic::winograd4:
        return pack_kernels<4>(packing, from, to);
      case Arithmetic::winograd2:
        return pack_kernels<2>(packing, from, to);
      default:
        return pack_kernels<0>(packing, from, to);
    }
  };
}

// A tile of 4 x 4 gradients of outputs, as transform_input.
FASTLLIE_INLINE void transform_gradient(const float* const (&rows)[4], int64_t at, int64_t pixel_pitch,
                                        float* to, int64_t pitch) {
  transform_tile<4, 6>(
      Winograd<4>::output_gradient,
      [&](int i, int j) __attribute__((always_inline)) { return load<f32v>(rows[i] + at + j * pixel_pitch); },
      [&](int i, int j, f32v v)
          __attribute__((always_inline)) { store(to + (i * 6 + j) * pitch, v, false); });
}

// The factors of a segment's tiles: with(rows, at, pixel pitch, place) for each tile and vector of channels.
// The blocks of BLOCK channels of a point lie `tiles` tiles apart.
template <int ROWS, int64_t BLOCK, class With>
static void transform_segment(const Source& source, const Window& window, int64_t across, int64_t tiles,
                              float* input, float* to, const With& with) {
  const auto transform = [&](const float* start, int64_t row_pitch, int64_t pixel_pitch, int64_t first,
                             int64_t channels) {
    const float* rows[ROWS];
    for (int k = 0; k < ROWS; ++k) rows[k] = start + k * row_pitch;
    for (int64_t x = 0; x < across; ++x)
      for (int64_t c = 0; c < channels; c += LANES<float>)
        with(rows, x * 4 * pixel_pitch + c, pixel_pitch,
             to + (first + c) / BLOCK * tiles * BLOCK + x * BLOCK + (first + c) % BLOCK);
  };
  if (readable_in_place(source, window)) {
    const int64_t* const strides = source.view.strides;
    transform(static_cast<const float*>(source.view.data) + window.b * strides[0] + window.top * strides[2] +
                  window.left * strides[3],
              strides[2], strides[3], 0, source.channels);
    return;
  }
  for (int64_t first = 0; first < source.channels; first += WINOGRAD_CHANNELS) {
    const int64_t channels = smaller(WINOGRAD_CHANNELS, source.channels - first);
    const int64_t pixel_pitch = rounded_up(channels, LANES<float>);
    gather<Same<float>, Same<float>>(source, window, first, channels, input, window.columns * pixel_pitch,
                                     pixel_pitch);
    // beyond the channels of the last vector stands what no sum of theirs reads
    transform(input, window.columns * pixel_pitch, pixel_pitch, first, channels);
  }
}

static void transform_factors(const KernelGradientTask& task, int64_t from, int64_t to) {
  const KernelGradient& gradient = task.gradient;
  const auto source = [](const View& view, const Sizes& sizes) {
    return Source{view, sizes[1], sizes[2], sizes[3], Sampling::same, {}};
  };
  const Source x = source(gradient.x, gradient.x_sizes), grad = source(gradient.grad, gradient.grad_sizes);
  const int64_t columns = task.across * 4 + 2;
  const int64_t bytes = 6 * columns * WINOGRAD_CHANNELS * sizeof(float);
  float* const input = static_cast<float*>(scratch(bytes));
  __builtin_memset(input, 0, bytes);
  for (int64_t unit = from; unit < to; ++unit) {
    const int64_t segment = task.first + unit;
    const int64_t left = segment % task.strips * task.across * 4;
    const int64_t top = segment / task.strips % task.down * 4, b = segment / task.strips / task.down;
    const int64_t tile = unit * task.across;
    transform_segment<6, INPUT_BLOCK>(
        x, {b, top - gradient.pad, left - gradient.pad, 6, columns}, task.across, task.tiles, input,
        task.x + tile * INPUT_BLOCK,
        [&](const float* const(&rows)[6], int64_t at, int64_t pixel_pitch, float* place) {
          transform_input<4, Same<float>, Same<float>>(rows, at, pixel_pitch, place, task.x_pitch);
        });
    transform_segment<4, OUTPUT_BLOCK>(
        grad, {b, top, left, 4, columns - 2}, task.across, task.tiles, input, task.grad + tile * OUTPUT_BLOCK,
        [&](const float* const(&rows)[4], int64_t at, int64_t pixel_pitch, float* place) {
          transform_gradient(rows, at, pixel_pitch, place, task.grad_pitch);
        });
  }
}

#if defined(FASTLLIE_AVX512)
constexpr int GRADIENT_ROWS = 8;
#else
constexpr int GRADIENT_ROWS = 4;
#endif

// sums[r][n] = the sum over tiles of x[r] * grad[n], for rows of inputs and two vectors of outputs.
template <bool ADD>
static __attribute__((noinline)) void sum_tiles(const float* x, const float* grad, int64_t tiles, float* to) {
  constexpr int ROWS = GRADIENT_ROWS;
  f32v sums[ROWS][2];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r) sums[r][0] = sums[r][1] = f32v{};
#pragma GCC unroll 2
  for (int64_t t = 0; t < tiles; ++t) {
    const f32v low = held(load<f32v>(grad + t * OUTPUT_BLOCK));
    const f32v high = held(load<f32v>(grad + t * OUTPUT_BLOCK + LANES<float>));
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      const f32v v = held(broadcast<f32v>(x[t * INPUT_BLOCK + r]));
      sums[r][0] += v * low;
      sums[r][1] += v * high;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r) {
    for (int n = 0; n < 2; ++n) {
      float* const place = to + r * OUTPUT_BLOCK + n * LANES<float>;
      store(place, ADD ? load<f32v>(place) + sums[r][n] : sums[r][n], false);
    }
  }
}

template <bool ADD>
static void sum_products(const KernelGradientTask& task, int64_t from, int64_t to) {
  for (int64_t unit = from; unit < to; ++unit) {
    const int64_t point = unit / task.output_blocks(), block = unit % task.output_blocks();
    const float* const grad = task.grad + point * task.grad_pitch + block * task.tiles * OUTPUT_BLOCK;
    const float* const x = task.x + point * task.x_pitch;
    float* const products = task.products + unit * task.inputs * OUTPUT_BLOCK;
    for (int64_t i = 0; i < task.inputs; i += GRADIENT_ROWS) {
      const float* const rows = x + i / INPUT_BLOCK * task.tiles * INPUT_BLOCK + i % INPUT_BLOCK;
      for (int64_t n = 0; n < OUTPUT_BLOCK; n += 2 * LANES<float>)
        sum_tiles<ADD>(rows, grad + n, task.tiles, products + i * OUTPUT_BLOCK + n);
    }
  }
}

static void finish_gradient(const KernelGradientTask& task, int64_t from, int64_t to) {
  const KernelGradient& gradient = task.gradient;
  const int64_t pitch = task.output_blocks() * task.inputs * OUTPUT_BLOCK;  // from point to point
  Taps taps;
  for (int64_t unit = from; unit < to; ++unit) {
    const int64_t block = unit / task.input_blocks(), output = block * OUTPUT_BLOCK;
    const int64_t input = unit % task.input_blocks() * INPUT_BLOCK;
    const int64_t outputs = smaller(OUTPUT_BLOCK, gradient.grad_sizes[1] - output);
    const int64_t inputs = smaller(INPUT_BLOCK, gradient.x_sizes[1] - input);
    for (int64_t i = 0; i < inputs; ++i) {
      for (int64_t c = 0; c < OUTPUT_BLOCK; c += LANES<float>) {
        const float* const products = task.products + (block * task.inputs + input + i) * OUTPUT_BLOCK + c;
        transform_tile<6, 3>(
            Winograd<4>::kernel_gradient,
            [&](int k, int j)
                __attribute__((always_inline)) { return load<f32v>(products + (k * 6 + j) * pitch); },
            [&](int k, int j, f32v v)
                __attribute__((always_inline)) { store(&taps.values[k * 3 + j][i][c], v, false); });
      }
    }
    float* const start = gradient.to + output * gradient.strides[0] + input * gradient.strides[1];
    each_tap(gradient.strides, outputs, inputs,
             [&](int tap, int64_t i, int64_t o, int64_t at) { start[at] = taps.values[tap][i][o]; });
  }
}

KernelGradientLoops kernel_gradient_loops() {
  return {transform_factors, sum_products<false>, sum_products<true>, finish_gradient};
}
