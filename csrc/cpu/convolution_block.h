// The blocks that convolutions are computed in, and what follows their sums. Included once for each
// instruction set, inside that set's namespace, after pack.h.

// A block of outputs and what it is made of.
struct Block {
  int64_t b, top, left, rows, columns;  // of outputs
  int64_t first, last;                  // output channels, whole blocks of them but the last

  Block(const ConvolutionTask& task, int64_t unit) {
    const int64_t group = unit % task.groups;
    unit /= task.groups;
    left = unit % task.strips * task.columns;
    unit /= task.strips;
    top = unit % task.bands * task.rows;
    b = unit / task.bands;
    rows = smaller(task.rows, task.sizes[2] - top);
    columns = smaller(task.columns, task.sizes[3] - left);
    first = group * task.group_outputs;
    last = smaller(first + task.group_outputs, task.outputs);
  }
};

// Bias, leaky ReLU and the affine function of a vector of output channels.
struct Epilogue {
  f32v bias, scale, shift;
  float slope;
  bool affine;

  FASTLLIE_INLINE Epilogue of(const ConvolutionTask& task, int64_t channel) {
    const float* const bias = task.convolution.epilogue + channel;
    const int64_t pitch = rounded_up(task.outputs, OUTPUT_BLOCK);
    return {load<f32v>(bias), load<f32v>(bias + pitch), load<f32v>(bias + 2 * pitch), task.convolution.slope,
            task.convolution.affine};
  }

  FASTLLIE_INLINE f32v finish(const Epilogue& e, f32v v) {
    v += e.bias;
    v = Bounds::at_least(v, e.slope == 0 ? f32v{} : v * e.slope);
    return e.affine ? v * e.scale + e.shift : v;
  }
};

template <class Out>
struct Pixels {
  typename Out::Element* start;
  int64_t row_pitch, pixel_pitch;

  Pixels(const View& out, const Block& block)
      : start(static_cast<typename Out::Element*>(out.data) + block.b * out.strides[0] +
              block.top * out.strides[2] + block.left * out.strides[3]),
        row_pitch(out.strides[2]),
        pixel_pitch(out.strides[3]) {}
};
