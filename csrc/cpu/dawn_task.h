// Between the entry points of dawn and their loops, which are compiled for each instruction set.
#pragma once
#include <array>

#include "cpu/convolution_task.h"
#include "cpu/isa.h"
#include "cpu/sizes.h"
#include "fastllie.h"

namespace fastllie {

constexpr int64_t DAWN_WIDTH = 12;  // channels of the denoiser's networks
constexpr int64_t DAWN_LEVELS = 4;  // of the pyramid
constexpr int64_t DAWN_LUMAS = 8, DAWN_ROWS = 8, DAWN_COLUMNS = 12, DAWN_PLANES = 6;  // of the grid
constexpr int64_t DAWN_THUMB_ROWS = 64, DAWN_THUMB_COLUMNS = 96;
constexpr int64_t DAWN_NOISE_ROWS = 48, DAWN_NOISE_COLUMNS = 64, DAWN_NOISES = 6;

// Planes of one level, with room on both sides of each row for the pixels that go on with its ends, and for
// whole vectors.
struct DawnPlanes {
  static constexpr int64_t BEFORE = 16, WHOLE = 64, AFTER = 32;
  float* start;
  int64_t height, width, pitch;

  DawnPlanes(float*& next, int64_t planes, int64_t height, int64_t width)
      : start(next + BEFORE), height(height), width(width), pitch(pitch_of(width)) {
    next += planes * height * pitch;
  }
  static int64_t pitch_of(int64_t width) { return BEFORE + rounded_up(width, WHOLE) + AFTER; }
  float* row(int64_t plane, int64_t r) const { return start + (plane * height + r) * pitch; }
};

// Inputs and outputs of the network of a level, and where its weights begin among all: of three convolutions
// the six factors of Winograd's algorithm that a column of a kernel becomes, each with three taps of every
// input, all outputs side by side; between the first two the weights of what the level below has found.
constexpr int64_t DAWN_KERNEL = 6 * 3;
constexpr int64_t dawn_inputs(int level) { return level == 1 ? 9 : 6; }
constexpr int64_t dawn_outputs(int level) { return level == 1 ? 6 : 3; }
constexpr int64_t dawn_weights(int level) {
  const int64_t below = level + 1 < DAWN_LEVELS ? DAWN_WIDTH * DAWN_WIDTH : 0;
  return DAWN_KERNEL * DAWN_WIDTH * (dawn_inputs(level) + DAWN_WIDTH + dawn_outputs(level)) + below;
}

// The same for the products of tiles: for each row of a kernel the taps of its pairs of inputs, in so many
// tiles that their lines suffice, of each output a line of bfloat16.
constexpr int64_t DAWN_TILE = 32, DAWN_LINES = 16;
constexpr int dawn_tile_parts(int64_t pairs) { return 3 * pairs > DAWN_LINES ? 2 : 1; }
constexpr int64_t dawn_tiles(int64_t pairs) { return 3 * dawn_tile_parts(pairs); }
constexpr int64_t dawn_tile_weights(int level) {
  const int64_t own = dawn_tiles(DAWN_WIDTH / 2), below = level + 1 < DAWN_LEVELS ? DAWN_WIDTH : 0;
  return DAWN_TILE * (dawn_tiles(parts(dawn_inputs(level), 2)) * DAWN_WIDTH + below + own * DAWN_WIDTH +
                      own * dawn_outputs(level));
}

struct DawnTask {
  const Dawn& network;
  int64_t image;          // of the batch
  int64_t height, width;  // whole blocks of 16 x 16 pixels
  bool stream;            // store the result past the caches
  int64_t bytes;          // of an element of the image
  // the means of each level from the half size on, magnitudes of the finest band at half size; of each level
  // from the quarter on the denoised means, and what the level above gets to know
  DawnPlanes mean[4], finest, clean[2], found[2];

  // Of all planes together.
  static int64_t floats(int64_t height, int64_t width) {
    const auto plane = [&](int64_t by) { return height / by * DawnPlanes::pitch_of(width / by); };
    return 6 * plane(2) + (6 + DAWN_WIDTH) * (plane(4) + plane(8)) + 3 * plane(16);
  }
  DawnTask(const Dawn& network, int64_t image, int64_t height, int64_t width, bool stream, int64_t bytes,
           float*& next)
      : network(network),
        image(image),
        height(height),
        width(width),
        stream(stream),
        bytes(bytes),
        mean{{next, 3, height / 2, width / 2},
             {next, 3, height / 4, width / 4},
             {next, 3, height / 8, width / 8},
             {next, 3, height / 16, width / 16}},
        finest(next, 3, height / 2, width / 2),
        clean{{next, 3, height / 4, width / 4}, {next, 3, height / 8, width / 8}},
        found{{next, DAWN_WIDTH, height / 4, width / 4}, {next, DAWN_WIDTH, height / 8, width / 8}} {}

  const float* gains(int level) const { return network.gains + (image * DAWN_LEVELS + level) * 3; }
};

using DawnLoop = void (*)(const DawnTask& task, int64_t from, int64_t to);

struct DawnLoops {
  DawnLoop halve;            // rows at half size: their means, and magnitudes of the finest band
  DawnLoop coarser[3];       // rows of the means at a quarter, an eighth, a sixteenth
  DawnLoop quarter, eighth;  // rows that the networks of these levels weigh
  DawnLoop finish;           // rows at half size, to the result
  DawnLoop brighten;         // rows of the image, where nothing is denoised
  // rows of the thumbnail
  void (*thumbnail)(const DawnThumbnail& thumbnail, int64_t from, int64_t to);
  // rows of places where noise is measured, and what all of an image's say
  void (*measure)(const DawnNoise& noise, int64_t from, int64_t to);
  void (*level)(const DawnNoise& noise, int64_t from, int64_t to);
};

FASTLLIE_DECLARE_TILES(DawnLoops dawn_loops())

}  // namespace fastllie
