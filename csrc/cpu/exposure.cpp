#include "cpu/exposure_task.h"
#include "cpu/parallel.h"

namespace fastllie {

void exposure_forward_cpu(const Exposure& exposure, int threads) {
  const Sizes& sizes = exposure.sizes;
  const ExposureLoop loop = FASTLLIE_CHOOSE(exposure_loop)();
  parallel(units_of(sizes, false), worthwhile(threads, 2 * sizes[0] * sizes[1] * sizes[2] * sizes[3]),
           [&](int64_t from, int64_t to) { loop(exposure, from, to); });
}

void exposure_light_cpu(const Light& light, int threads) {
  const Sizes& sizes = light.sizes;
  const LightLoop loop = FASTLLIE_CHOOSE(light_loop)();
  parallel(sizes[0] * sizes[2], worthwhile(threads, sizes[0] * sizes[1] * sizes[2] * sizes[3]),
           [&](int64_t from, int64_t to) { loop(light, from, to); });
}

}  // namespace fastllie
