#include <algorithm>

#include "cpu/dawn_brain_task.h"
#include "cpu/dawn_task.h"
#include "cpu/parallel.h"
#include "cpu/views.h"

namespace fastllie {
namespace {

constexpr int64_t BLOCK = int64_t{1} << DAWN_LEVELS;
// Rows of a unit of work, each of which makes the rows around it anew
constexpr int64_t ROWS_LEAST = 16, ROWS_MOST = 192;

// Calls body(from, to) for bands of rows.
template <class Body>
void in_bands(int64_t rows, int threads, const Body& body) {
  // as many for each thread; at least two, for one that comes late
  const int64_t bands = rounded_up(std::max<int64_t>(2 * threads, parts(rows, ROWS_MOST)), threads);
  const int64_t band = rounded_up(std::max(parts(rows, bands), ROWS_LEAST), 4);
  parallel(parts(rows, band), threads, [&](int64_t from, int64_t to) {
    for (int64_t unit = from; unit < to; ++unit) body(unit * band, smaller((unit + 1) * band, rows));
  });
}

}  // namespace

int64_t dawn_floats_cpu(const Sizes& sizes) {
  return DawnTask::floats(rounded_up(sizes[2], BLOCK), rounded_up(sizes[3], BLOCK));
}

void dawn_forward_cpu(const Dawn& network, int threads) {
  const auto& [batch, channels, height, width] = network.sizes;
  const DawnLoops run = FASTLLIE_CHOOSE_TILES(dawn_loops, network.pairs)();
  expect_whole_pages(network.out, batch * channels * height * width);
  // interleaved channels fill whole lines together
  View lines = network.out;
  if (lines.strides[1] == 1 && lines.strides[3] == 3) lines.strides[1] = 0;
  const bool stream =
      (unit(network.out) || lines.strides[1] == 0) && can_stream(lines, batch * channels * height * width);
  for (int64_t image = 0; image < batch; ++image) {
    float* next = network.workspace;
    const DawnTask task(network, image, rounded_up(height, BLOCK), rounded_up(width, BLOCK), stream,
                        bytes_of(network.x.dtype), next);
    const auto bands = [&](int64_t rows, DawnLoop loop) {
      in_bands(rows, threads, [&](int64_t from, int64_t to) { loop(task, from, to); });
    };
    if (network.denoise == 0) {
      bands(height, run.brighten);
      continue;
    }
    bands(task.height / 2, run.halve);
    for (int level = 0; level < 3; ++level) bands(task.height >> (level + 2), run.coarser[level]);
    bands(task.height / 8, run.eighth);
    bands(task.height / 4, run.quarter);
    bands(task.height / 2, run.finish);
  }
}

void dawn_thumbnail_cpu(const DawnThumbnail& thumbnail, int threads) {
  const auto run = FASTLLIE_CHOOSE(dawn_loops)().thumbnail;
  parallel(thumbnail.sizes[0] * DAWN_THUMB_ROWS, threads,
           [&](int64_t from, int64_t to) { run(thumbnail, from, to); });
}

void dawn_noise_cpu(const DawnNoise& noise, int threads) {
  const DawnLoops run = FASTLLIE_CHOOSE(dawn_loops)();
  parallel(noise.sizes[0] * DAWN_NOISE_ROWS, threads,
           [&](int64_t from, int64_t to) { run.measure(noise, from, to); });
  run.level(noise, 0, noise.sizes[0] * DAWN_NOISES);
}

int64_t dawn_brain_floats_cpu() { return DawnBrainTask::floats(); }

void dawn_brain_cpu(const DawnBrain& brain, int threads) {
  const DawnBrainLoops run = FASTLLIE_CHOOSE(dawn_brain_loops)();
  for (int64_t image = 0; image < brain.images; ++image) {
    const DawnBrainTask task(brain, image);
    const auto rows = [&](int64_t count, void (*loop)(const DawnBrainTask&, int64_t, int64_t)) {
      parallel(count, threads, [&](int64_t from, int64_t to) { loop(task, from, to); });
    };
    rows(DAWN_THUMB_ROWS, run.see);
    for (int layer = 0; layer < 7; ++layer) {
      rows(DAWN_LAYERS[layer].rows, run.layers[layer]);
      if (layer == 3) run.whole(task);
    }
  }
}

}  // namespace fastllie
