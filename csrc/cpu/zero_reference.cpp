#include "zero_reference.h"

#include <memory>

#include "cpu/parallel.h"
#include "cpu/zero_reference_task.h"

namespace fastllie {
namespace {

int64_t maps_of(const Curve& curve) { return curve.sizes[1] * (curve.shared ? 1 : curve.steps); }

int64_t strips_of(const Sizes& sizes) {
  const int64_t down = (sizes[2] + STRIP_ROWS - 1) / STRIP_ROWS;
  return down * ((sizes[3] + STRIP_COLUMNS - 1) / STRIP_COLUMNS);
}

void execute(bool backward, const ZeroReferenceTask& task, int threads) {
  const Sizes& sizes = task.curve.sizes;
  const ZeroReferenceLoop loop = FASTLLIE_CHOOSE(zero_reference_loop)(backward, task);
  const int64_t work = sizes[0] * maps_of(task.curve) * sizes[2] * sizes[3];
  parallel(sizes[0] * strips_of(sizes), worthwhile(threads, work),
           [&](int64_t from, int64_t to) { loop(task, from, to); });
}

// Channels side by side are written with those of the next pixels, so that their own stride does not matter.
bool can_stream_rows(View v, int64_t channels, int64_t elements) {
  if (v.strides[1] == 1 && v.strides[3] == channels) v.strides[1] = 0;
  return can_stream(v, elements);
}

// What is not of the size of an image. Sums are float64, of a row at a time: whoever works on it, their order
// is the same.
struct Regions {
  int64_t images;
  int down, across, patches_down, patches_across;

  explicit Regions(const Sizes& sizes)
      : images(sizes[0]),
        down(int(sizes[2] / CELL)),
        across(int(sizes[3] / CELL)),
        patches_down(int(sizes[2] / PATCH)),
        patches_across(int(sizes[3] / PATCH)) {}

  int64_t cells() const { return images * down * across; }
  int64_t patches() const { return images * patches_down * patches_across; }
  int64_t rows() const { return images * down; }
};

// Fills `sums` with what each row of cells, then of patches, adds to its loss.
template <class T>
void sum_rows(const ZeroReference& found, const Regions& regions, double level, double* sums, int threads) {
  const auto* const cells = static_cast<const T*>(found.cells);
  const auto* const patches = static_cast<const T*>(found.patches);
  const int64_t units = regions.rows() + regions.images * regions.patches_down;
  parallel(units, worthwhile(threads, regions.cells() * 4), [&](int64_t from, int64_t to) {
    for (int64_t unit = from; unit < to; ++unit) {
      double sum = 0;
      if (unit < regions.rows()) {
        const T* const image = cells + unit / regions.down * (int64_t{regions.down} * regions.across);
        for (int j = 0; j < regions.across; ++j)
          sum += steps_of<double>(image, regions.down, regions.across, int(unit % regions.down), j);
      } else {
        const T* const row = patches + (unit - regions.rows()) * regions.patches_across;
        for (int j = 0; j < regions.patches_across; ++j) sum += (row[j] - level) * (row[j] - level);
      }
      sums[unit] = sum;
    }
  });
}

template <class T>
void losses_of(const ZeroReference& found, const double* parts, double* rows, const Sizes& sizes,
               double level, int threads) {
  const Regions regions(sizes);
  sum_rows<T>(found, regions, level, rows, threads);
  const double height = double(sizes[2]), width = double(sizes[3]), batch = double(sizes[0]);
  double variation = 0, spatial = 0, colour = 0, exposure = 0;
  for (int64_t b = 0; b < regions.images; ++b) {
    double sums[5] = {};
    for (int64_t strip = 0; strip < strips_of(sizes); ++strip)
      for (double& sum : sums) sum += *parts++;
    double* const means = found.means + b * 3;
    for (int c = 0; c < 3; ++c) means[c] = sums[c] / (height * width);
    double fourth = 0;
    for (int c = 0; c < 3; ++c) {
      const double apart = means[c] - means[(c + 1) % 3];
      fourth += apart * apart * apart * apart;
    }
    colour += std::sqrt(fourth);
    variation += sums[3] / ((height - 1) * width) + sums[4] / (height * (width - 1));
  }
  for (int64_t row = 0; row < regions.rows(); ++row) spatial += *rows++;
  for (int64_t row = 0; row < regions.images * regions.patches_down; ++row) exposure += *rows++;
  T* const losses = static_cast<T*>(found.losses);
  losses[0] = T(2 * variation / batch);
  losses[1] = T(spatial / double(regions.cells()));
  losses[2] = T(colour / batch);
  losses[3] = T(exposure / double(regions.patches()));
}

// An element of the enhanced image has the gradient slopes[b, 0, cell] + channels[b, c], and one of the given
// image slopes[b, 1, cell] besides what comes through the curve.
template <class T>
struct Slopes {
  std::unique_ptr<T[]> cells, channels;
  double variation;  // the gradient of that loss

  Slopes(const ZeroReference& found, const View& grad, const Sizes& sizes, double level, int threads) {
    const Regions regions(sizes);
    const auto* const losses = static_cast<const T*>(grad.data);
    const auto grad_of = [&](int loss) { return double(losses[loss * grad.strides[0]]); };
    variation = grad_of(0);
    const double of_cell = grad_of(1) * 2 / (double(regions.cells()) * 3 * CELL * CELL);
    const double of_patch = grad_of(3) * 2 / (double(regions.patches()) * 3 * PATCH * PATCH);
    const double of_channel = grad_of(2) * 2 / (double(sizes[0]) * double(sizes[2]) * double(sizes[3]));
    channels.reset(new T[regions.images * 3]);
    for (int64_t b = 0; b < regions.images; ++b)
      for (int c = 0; c < 3; ++c)
        channels[b * 3 + c] = T(of_channel * slope_of_colour<double>(found.means + b * 3, c));
    cells.reset(new T[regions.cells() * 2]);
    parallel(regions.rows(), worthwhile(threads, regions.cells() * 8), [&](int64_t from, int64_t to) {
      constexpr int EACH = int(PATCH / CELL);
      for (int64_t row = from; row < to; ++row) {
        const int64_t b = row / regions.down, plane = int64_t{regions.down} * regions.across;
        const int i = int(row % regions.down), patch_row = i / EACH;
        const T* const image = static_cast<const T*>(found.cells) + b * plane;
        const T* const patches = static_cast<const T*>(found.patches) +
                                 (b * regions.patches_down + patch_row) * regions.patches_across;
        T* const enhanced = cells.get() + b * 2 * plane + i * int64_t{regions.across};
        for (int j = 0; j < regions.across; ++j) {
          const double spatial = of_cell * slope_of_steps<double>(image, regions.down, regions.across, i, j);
          const bool inside = patch_row < regions.patches_down && j / EACH < regions.patches_across;
          const double exposure = inside ? of_patch * (patches[j / EACH] - level) : 0;
          enhanced[j] = T(spatial + exposure);
          enhanced[plane + j] = T(-spatial);
        }
      }
    });
  }
};

template <class T>
void go_back(ZeroReferenceTask& task, const ZeroReference& found, const View& grad, double level,
             int threads) {
  const Sizes& sizes = task.curve.sizes;
  const Slopes<T> slopes(found, grad, sizes, level, threads);
  task.slopes = slopes.cells.get();
  task.channels = slopes.channels.get();
  const VariationFactors factors = variation_factors(sizes.data(), slopes.variation);
  task.vertical = factors.vertical;
  task.horizontal = factors.horizontal;
  execute(true, task, threads);
}

}  // namespace

int64_t zero_reference_doubles_cpu(const Sizes& sizes) {
  const Regions regions(sizes);
  return sizes[0] * (strips_of(sizes) * 5 + regions.down + regions.patches_down);
}

void zero_reference_losses_cpu(const View& x, const View& alpha, const ZeroReference& found,
                               double* workspace, const Curve& curve, double level, int threads) {
  ZeroReferenceTask task{};
  task.curve = curve;
  task.x = x;
  task.alpha = alpha;
  task.cells = found.cells;
  task.patches = found.patches;
  task.parts = workspace;
  execute(false, task, threads);
  double* const rows = workspace + curve.sizes[0] * strips_of(curve.sizes) * 5;
  if (x.dtype == Dtype::f64)
    losses_of<double>(found, workspace, rows, curve.sizes, level, threads);
  else
    losses_of<float>(found, workspace, rows, curve.sizes, level, threads);
}

void zero_reference_slopes_cpu(const View& x, const View& alpha, const ZeroReference& found, const View& grad,
                               const View& grad_x, const View& grad_alpha, const Curve& curve, double level,
                               int threads) {
  ZeroReferenceTask task{};
  task.curve = curve;
  task.x = x;
  task.alpha = alpha;
  task.grad_x = grad_x;
  task.grad_alpha = grad_alpha;
  const int64_t pixels = curve.sizes[0] * curve.sizes[2] * curve.sizes[3], maps = maps_of(curve);
  task.stream_x = can_stream_rows(grad_x, 3, pixels * 3);
  task.stream_alpha = can_stream_rows(grad_alpha, maps, pixels * maps);
  expect_whole_pages(grad_x, pixels * 3);
  expect_whole_pages(grad_alpha, pixels * maps);
  if (x.dtype == Dtype::f64)
    go_back<double>(task, found, grad, level, threads);
  else
    go_back<float>(task, found, grad, level, threads);
}

}  // namespace fastllie
