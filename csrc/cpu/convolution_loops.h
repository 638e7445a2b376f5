// The loops of the convolutions. Included once for each instruction set, inside that set's namespace, after
// convolution_block.h, convolution_multiply.h, convolution_gather.h and winograd.h.
//
// Every output is made by the same operations in the same order wherever its block ends, and blocks start on
// a grid of tiles: neither the number of threads nor the cut changes a bit.

// Direct: each sum runs over the window of its pixel, whose rows are consecutive in memory.
template <class Storage, class S, class Out>
static void run_direct(const ConvolutionTask& task, int64_t from, int64_t to) {
  using In = typename Storage::Element;
  constexpr int64_t PACKED = sizeof(S) / sizeof(In);  // values that are multiplied at once
  const Convolution& convolution = task.convolution;
  const int64_t side = convolution.side, margin = side - 1;
  const int64_t inputs = rounded_up(task.inputs, PACKED);
  const int64_t depth = side * inputs / PACKED;  // of one row of the window
  // the last rows of a product may read pixels that nobody wants
  const int64_t pixels = (task.rows + margin) * (task.columns + margin) + ROW_BLOCK + margin;
  In* const input = static_cast<In*>(scratch(pixels * inputs * sizeof(In)));
  __builtin_memset(input, 0, pixels * inputs * sizeof(In));
  int64_t gathered = -1;
  for (int64_t unit = from; unit < to; ++unit) {
    const Block block(task, unit);
    const int64_t pitch = block.columns + margin;
    if (gathered != unit / task.groups) {
      gathered = unit / task.groups;
      const Window window{block.b, block.top - convolution.pad, block.left - convolution.pad,
                          block.rows + margin, pitch};
      int64_t channel = 0;
      for (int64_t i = 0; i < convolution.count; ++i) {
        const Source& source = convolution.sources[i];
        gather_any<Storage>(source, window, 0, source.channels, input + channel, pitch * inputs, inputs);
        channel += source.channels;
      }
    }
    const Pixels<Out> out(convolution.out, block);
    // rows of outputs one after the other, or all pixels in one line with those between the rows in vain
    const bool line = rounded_up(block.rows * pitch - margin, PRODUCT_ROWS) <
                      block.rows * rounded_up(block.columns, PRODUCT_ROWS);
    const int64_t lines = line ? 1 : block.rows, length = line ? block.rows * pitch - margin : block.columns;
    for (int64_t c = block.first; c < block.last; c += OUTPUT_BLOCK) {
      const auto columns = [&](int64_t n, auto count) {
        constexpr int N = decltype(count)::value;
        const S* const weights =
            static_cast<const S*>(convolution.weights) + c * side * depth + n * LANES<float>;
        Epilogue epilogues[N];
        for (int k = 0; k < N; ++k) epilogues[k] = Epilogue::of(task, c + (n + k) * LANES<float>);
        alignas(64) float sums[PRODUCT_ROWS * OUTPUT_BLOCK];
        for (int64_t i = 0; i < lines; ++i) {
          for (int64_t p = 0; p < length; p += PRODUCT_ROWS) {
            const In* const start = input + (i * pitch + p) * inputs;
            const auto window = [&](int64_t ky) {
              return reinterpret_cast<const S*>(start + ky * pitch * inputs);
            };
            if (side == 3)
              product<N, S>({window(0), window(1), window(2)}, inputs / PACKED, length - p, weights, depth,
                            sums);
            else
              product<N, S>({window(0)}, inputs / PACKED, length - p, weights, depth, sums);
            for (int r = 0; r < PRODUCT_ROWS && p + r < length; ++r) {
              const int64_t h = line ? (p + r) / pitch : i, w = line ? (p + r) % pitch : p + r;
              if (w >= block.columns) continue;
              typename Out::Element* const pixel = out.start + h * out.row_pitch + w * out.pixel_pitch;
              for (int k = 0; k < N; ++k) {
                const int64_t channel = c + (n + k) * LANES<float>;
                write_some<Out>(
                    pixel + channel,
                    Epilogue::finish(epilogues[k], load<f32v>(sums + r * OUTPUT_BLOCK + k * LANES<float>)),
                    block.last - channel);
              }
            }
          }
        }
      };
      const int64_t vectors = (smaller(block.last - c, OUTPUT_BLOCK) + LANES<float> - 1) / LANES<float>;
      int64_t n = 0;
      for (; n + 2 <= vectors; n += 2) columns(n, std::integral_constant<int, 2>{});
      if (n < vectors) columns(n, std::integral_constant<int, 1>{});
    }
  }
}

// Where a block's tiles are, and their factors.
struct Tiles {
  int64_t down, across;
  int64_t depth, pitch;  // of the factors, from tile to tile and from point to point
};

template <int M, class Pixel, class Factor>
static void transform_tiles(const typename Pixel::Element* input, int64_t row_pitch, int64_t pixel_pitch,
                            int64_t channels, const Tiles& tiles, typename Factor::Element* factors) {
  for (int64_t y = 0; y < tiles.down; ++y) {
    const typename Pixel::Element* rows[M + 2];
    for (int k = 0; k < M + 2; ++k) rows[k] = input + (y * M + k) * row_pitch;
    for (int64_t x = 0; x < tiles.across; ++x) {
      typename Factor::Element* const to = factors + (y * tiles.across + x) * tiles.depth;
      // what the last vector writes too much, the next source overwrites or nobody reads
      for (int64_t c = 0; c < channels; c += LANES<float>)
        transform_input<M, Pixel, Factor>(rows, x * M * pixel_pitch + c, pixel_pitch, to + c, tiles.pitch);
    }
  }
}

// The factors of a block's products: of every tile, at every one of the points, all input channels.
template <int M, class Factor>
static void transform_block(const Convolution& convolution, const Block& block, const Tiles& tiles,
                            float* input, typename Factor::Element* factors) {
  const Window window{block.b, block.top - convolution.pad, block.left - convolution.pad, tiles.down * M + 2,
                      tiles.across * M + 2};
  for (int64_t i = 0; i < convolution.count; ++i) {
    const Source& source = convolution.sources[i];
    if (readable_in_place(source, window)) {
      with_storage<float>(source.view.dtype, [&](auto code) {
        using Pixel = decltype(code);
        const int64_t* const strides = source.view.strides;
        const auto* const start = static_cast<const typename Pixel::Element*>(source.view.data) +
                                  window.b * strides[0] + window.top * strides[2] + window.left * strides[3];
        transform_tiles<M, Pixel, Factor>(start, strides[2], strides[3], source.channels, tiles, factors);
      });
      factors += source.channels;
      continue;
    }
    for (int64_t first = 0; first < source.channels; first += WINOGRAD_CHANNELS) {
      const int64_t channels = smaller(WINOGRAD_CHANNELS, source.channels - first);
      const int64_t pixel_pitch = rounded_up(channels, LANES<float>);
      const int64_t row_pitch = window.columns * pixel_pitch;
      gather_any<Same<float>>(source, window, first, channels, input, row_pitch, pixel_pitch);
      transform_tiles<M, Same<float>, Factor>(input, row_pitch, pixel_pitch, channels, tiles, factors);
      factors += channels;
    }
  }
}

// What of a tile lies in the image.
template <int M, class Out>
FASTLLIE_INLINE void write_tile(const float* sums, int64_t pitch, const Epilogue& epilogue,
                                typename Out::Element* to, const Pixels<Out>& out, int64_t rows,
                                int64_t columns, int64_t channels) {
  f32v y[M][M];
  transform_output<M>(sums, pitch, y);
#pragma GCC unroll 4
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < M; ++j) y[i][j] = Epilogue::finish(epilogue, y[i][j]);
  if (rows >= M && columns >= M && channels >= LANES<float>) {
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < M; ++j)
        store(to + i * out.row_pitch + j * out.pixel_pitch, Out::narrow(y[i][j]), false);
    return;
  }
  for (int i = 0; i < M && i < rows; ++i)
    for (int j = 0; j < M && j < columns; ++j)
      write_some<Out>(to + i * out.row_pitch + j * out.pixel_pitch, y[i][j], channels);
}

template <int M, class Factor, class S, class Out>
static void run_winograd(const ConvolutionTask& task, int64_t from, int64_t to) {
  using F = typename Factor::Element;
  constexpr int64_t PACKED = sizeof(S) / sizeof(F);  // values that are multiplied at once
  constexpr int POINTS = Winograd<M>::TAPS * Winograd<M>::TAPS;
  const Convolution& convolution = task.convolution;
  const int64_t inputs = rounded_up(task.inputs, PACKED) / PACKED;
  int64_t depth = 0;  // with room for the last vector of each source
  for (int64_t i = 0; i < convolution.count; ++i)
    depth += rounded_up(convolution.sources[i].channels, LANES<float>);
  const int64_t down = (task.rows + M - 1) / M, across = (task.columns + M - 1) / M;
  const int64_t most = rounded_up(down * across, ROW_BLOCK);  // tiles
  // 64 bytes more, or the points of a tile would fall on the same lines of the first cache
  const int64_t pitch = most * depth + 64 / sizeof(F), sums_pitch = most * OUTPUT_BLOCK + 16;
  const int64_t input_size =
      (down * M + 2) * (across * M + 2) * rounded_up(smaller(task.inputs, WINOGRAD_CHANNELS), LANES<float>);
  const int64_t floats = POINTS * sums_pitch + input_size;
  float* const sums = static_cast<float*>(scratch(floats * sizeof(float) + POINTS * pitch * sizeof(F)));
  float* const input = sums + POINTS * sums_pitch;
  F* const factors = reinterpret_cast<F*>(sums + floats);
  // tiles that only fill a product up, and channels that only fill a vector up
  __builtin_memset(input, 0, input_size * sizeof(float) + POINTS * pitch * sizeof(F));
  int64_t transformed = -1;
  for (int64_t unit = from; unit < to; ++unit) {
    const Block block(task, unit);
    const Tiles tiles{(block.rows + M - 1) / M, (block.columns + M - 1) / M, depth, pitch};
    if (transformed != unit / task.groups) {
      transformed = unit / task.groups;
      transform_block<M, Factor>(convolution, block, tiles, input, factors);
    }
    const int64_t count = tiles.down * tiles.across;
    const Pixels<Out> out(convolution.out, block);
    for (int64_t c = block.first; c < block.last; c += OUTPUT_BLOCK) {
      const int64_t vectors = (smaller(block.last - c, OUTPUT_BLOCK) + LANES<float> - 1) / LANES<float>;
      const S* const weights = static_cast<const S*>(convolution.weights) + c * POINTS * inputs;
      const auto columns = [&](int64_t n, auto width) {
        constexpr int N = decltype(width)::value;
        for (int point = 0; point < POINTS; ++point) {
          const S* const w = weights + point * inputs * OUTPUT_BLOCK + n * LANES<float>;
          for (int64_t tile = 0; tile < count; tile += PRODUCT_ROWS) {
            const F* const rows = factors + point * pitch + tile * depth;
            product<N, S>({reinterpret_cast<const S*>(rows)}, depth / PACKED, count - tile, w, inputs,
                          sums + point * sums_pitch + tile * OUTPUT_BLOCK + n * LANES<float>);
          }
        }
      };
      int64_t n = 0;
      for (; n + 2 <= vectors; n += 2) columns(n, std::integral_constant<int, 2>{});
      if (n < vectors) columns(n, std::integral_constant<int, 1>{});
      for (n = 0; n < vectors; ++n) {
        const int64_t channel = c + n * LANES<float>, channels = block.last - channel;
        const Epilogue epilogue = Epilogue::of(task, channel);
        for (int64_t y = 0; y < tiles.down; ++y) {
          for (int64_t x = 0; x < tiles.across; ++x) {
            const float* const tile = sums + (y * tiles.across + x) * OUTPUT_BLOCK + n * LANES<float>;
            write_tile<M, Out>(tile, sums_pitch, epilogue,
                               out.start + y * M * out.row_pitch + x * M * out.pixel_pitch + channel, out,
                               block.rows - y * M, block.columns - x * M, channels);
          }
        }
      }
    }
  }
}

template <class Out>
static void run_convolution(const ConvolutionTask& task, int64_t from, int64_t to) {
  switch (task.convolution.arithmetic) {
    case Arithmetic::direct:
      return run_direct<Same<float>, float, Out>(task, from, to);
    case Arithmetic::pairs:
      return run_direct<QuickBf16, uint32_t, Out>(task, from, to);
    case Arithmetic::winograd2:
      return run_winograd<2, Same<float>, float, Out>(task, from, to);
    case Arithmetic::winograd2_pairs:
      return run_winograd<2, QuickBf16, uint32_t, Out>(task, from, to);
    case Arithmetic::winograd4:
      return run_winograd<4, Same<float>, float, Out>(task, from, to);
    case Arithmetic::winograd4_pairs:
      return run_winograd<4, QuickBf16, uint32_t, Out>(task, from, to);
    case Arithmetic::tiles:
      return;  // has loops of its own
  }
}

ConvolutionLoop convolution_loop(Dtype out) {
  return out == Dtype::bf16 ? run_convolution<QuickBf16> : run_convolution<Same<float>>;
}
