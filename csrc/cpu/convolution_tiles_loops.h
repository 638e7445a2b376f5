// The loops of the convolutions by tiles of bfloat16. Included inside the namespace of AMX's instruction set,
// after convolution_block.h, convolution_gather.h and convolution_tiles.h.

// The outputs of pixels that lie side by side, from their sums; at most `channels` of them.
template <int HALVES, class Out>
static void finish_pixels(const float* from, int64_t count, const Epilogue* epilogues, int64_t channels,
                          typename Out::Element* to, int64_t pitch) {
  Epilogue epilogue[HALVES];
  for (int k = 0; k < HALVES; ++k) epilogue[k] = epilogues[k];
  for (int64_t i = 0; i < count; ++i, from += OUTPUT_BLOCK, to += pitch)
    for (int k = 0; k < HALVES; ++k)
      write_some<Out>(to + k * TILE, Epilogue::finish(epilogue[k], load<f32v>(from + k * TILE)),
                      channels - k * TILE);
}

// Steps of pixels of one block and 32 outputs, which are finished while the next ones are multiplied.
template <int HALVES, int ROWS, class Out>
static void run_tiles_of(const ConvolutionTask& task, const Block& block, const uint16_t* input,
                         int64_t inputs, int64_t c) {
  constexpr int64_t STEP = 4 / HALVES * TILE;
  const Convolution& convolution = task.convolution;
  const int64_t margin = convolution.side - 1, pitch = block.columns + margin;
  const int64_t pairs = tile_pairs(convolution.side * inputs / 2), depth = 2 * pairs;
  const int64_t parts = convolution.side * inputs / depth;
  const uint16_t* const weights =
      static_cast<const uint16_t*>(convolution.weights) + c * convolution.side * parts * depth;
  const Pixels<Out> out(convolution.out, block);
  Epilogue epilogues[HALVES];
  for (int k = 0; k < HALVES; ++k) epilogues[k] = Epilogue::of(task, c + k * TILE);
  // rows of outputs one after the other, or all pixels in one line with those between the rows in vain
  const bool line =
      rounded_up(block.rows * pitch - margin, STEP) < block.rows * rounded_up(block.columns, STEP);
  const int64_t lines = line ? 1 : block.rows, length = line ? block.rows * pitch - margin : block.columns;
  alignas(64) float sums[2][STEP * OUTPUT_BLOCK];
  const int64_t turning = line ? pitch : rounded_up(block.columns, STEP);  // columns of a row, wanted or not
  int64_t row = 0, column = 0;  // of the first that is not finished
  const auto finish = [&](const float* from) __attribute__((always_inline)) {
    for (int64_t left = STEP; left && row < block.rows;) {
      const int64_t some = smaller(left, turning - column), wanted = smaller(some, block.columns - column);
      finish_pixels<HALVES, Out>(from, wanted, epilogues, block.last - c,
                                 out.start + row * out.row_pitch + column * out.pixel_pitch + c,
                                 out.pixel_pitch);
      from += some * OUTPUT_BLOCK;
      left -= some;
      column += some;
      if (column == turning) column = 0, ++row;
    }
  };
  int turn = 0;
  for (int64_t i = 0; i < lines; ++i) {
    for (int64_t p = 0; p < length; p += STEP, turn ^= 1) {
      const uint16_t* starts[4 / HALVES][ROWS];
      for (int tile = 0; tile < 4 / HALVES; ++tile)
        for (int ky = 0; ky < ROWS; ++ky)
          starts[tile][ky] = input + ((i + ky) * pitch + p + tile * TILE) * inputs;
      tile_products<HALVES, ROWS>(starts, inputs, parts, depth, weights, sums[turn]);
      if (i || p) finish(sums[turn ^ 1]);
    }
  }
  finish(sums[turn ^ 1]);
}

template <class Out>
static void run_tiles(const ConvolutionTask& task, int64_t from, int64_t to) {
  const Convolution& convolution = task.convolution;
  const int64_t margin = convolution.side - 1, inputs = rounded_up(task.inputs, 2);
  // the last tiles may read pixels that nobody wants
  const int64_t pixels = (task.rows + margin) * (task.columns + margin) + 4 * TILE + margin;
  uint16_t* const input = static_cast<uint16_t*>(scratch(pixels * inputs * sizeof(uint16_t)));
  __builtin_memset(input, 0, pixels * inputs * sizeof(uint16_t));
  tile_shapes(tile_pairs(convolution.side * inputs / 2));
  int64_t gathered = -1;
  for (int64_t unit = from; unit < to; ++unit) {
    const Block block(task, unit);
    if (gathered != unit / task.groups) {
      gathered = unit / task.groups;
      const Window window{block.b, block.top - convolution.pad, block.left - convolution.pad,
                          block.rows + margin, block.columns + margin};
      int64_t channel = 0;
      for (int64_t i = 0; i < convolution.count; ++i) {
        const Source& source = convolution.sources[i];
        gather_any<QuickBf16>(source, window, 0, source.channels, input + channel, window.columns * inputs,
                              inputs);
        channel += source.channels;
      }
    }
    for (int64_t c = block.first; c < block.last; c += OUTPUT_BLOCK) {
      const bool both = block.last - c > TILE;
      if (convolution.side == 3)
        both ? run_tiles_of<2, 3, Out>(task, block, input, inputs, c)
             : run_tiles_of<1, 3, Out>(task, block, input, inputs, c);
      else
        both ? run_tiles_of<2, 1, Out>(task, block, input, inputs, c)
             : run_tiles_of<1, 1, Out>(task, block, input, inputs, c);
    }
  }
  // the system would otherwise keep them for the thread
  _tile_release();
}

ConvolutionLoop convolution_tiles_loop(Dtype out) {
  return out == Dtype::bf16 ? run_tiles<QuickBf16> : run_tiles<Same<float>>;
}
