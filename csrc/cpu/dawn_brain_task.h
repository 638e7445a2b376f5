// Between the entry point of dawn's brain and its loops, which are compiled for each instruction set.
#pragma once
#include <array>

#include "cpu/dawn_task.h"

namespace fastllie {

// A convolution of the brain: inputs and outputs as they lie, channels side by side in whole vectors; only
// the first `read` of the inputs are more than room.
struct DawnLayer {
  int64_t rows, columns, read, inputs, outputs, stride, side;  // of the result; side of the kernel

  constexpr int64_t weights() const { return (side * side * read + 1) * outputs; }  // with the bias
  constexpr int64_t floats() const { return rows * columns * outputs; }
};

// conv1 to conv6, last
constexpr std::array<DawnLayer, 7> DAWN_LAYERS{{{32, 48, 6, 16, 32, 2, 3},
                                                {16, 24, 24, 32, 48, 2, 3},
                                                {16, 24, 40, 48, 48, 1, 3},
                                                {8, 12, 40, 48, 64, 2, 3},
                                                {8, 12, 64, 64, 64, 1, 3},
                                                {8, 12, 64, 64, 64, 1, 3},
                                                {8, 12, 64, 64, 48, 1, 1}}};
constexpr int64_t DAWN_CHANNELS = 64;  // of the coarsest planes
constexpr int64_t DAWN_FACTS = 18, DAWN_TOLD = 32, DAWN_WHOLE = 96, DAWN_PERCENTILES = 8;

struct DawnBrainTask {
  const DawnBrain& brain;
  int64_t image;  // of the batch
  // of the thumbnail in both scales, then of each layer but the last: all one after the other
  float *seen, *planes[6], *values;
  const float *weights[7], *dense;

  static constexpr int64_t SEEN = DAWN_THUMB_ROWS * DAWN_THUMB_COLUMNS * DAWN_LAYERS[0].inputs;
  static constexpr int64_t VALUES = DAWN_THUMB_ROWS * DAWN_THUMB_COLUMNS;
  static constexpr int64_t floats() {
    int64_t sum = SEEN + VALUES;
    for (int i = 0; i < 6; ++i) sum += DAWN_LAYERS[i].floats();
    return sum;
  }
  DawnBrainTask(const DawnBrain& brain, int64_t image) : brain(brain), image(image) {
    float* next = brain.workspace;
    seen = next;
    next += SEEN;
    for (int i = 0; i < 6; ++i) {
      planes[i] = next;
      next += DAWN_LAYERS[i].floats();
    }
    values = next;
    dense = brain.weights;
    for (int i = 0; i < 7; ++i) {
      weights[i] = dense;
      dense += DAWN_LAYERS[i].weights();
    }
  }
};

struct DawnBrainLoops {
  void (*see)(const DawnBrainTask& task, int64_t from, int64_t to);        // rows of the thumbnail
  void (*layers[7])(const DawnBrainTask& task, int64_t from, int64_t to);  // rows of their results
  void (*whole)(const DawnBrainTask& task);  // what is known of the whole, on top of conv4's result
};

FASTLLIE_DECLARE(DawnBrainLoops dawn_brain_loops())

}  // namespace fastllie
