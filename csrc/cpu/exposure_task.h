// Between the entry point of the exposure meter and its loop, which is compiled for each instruction set.
#pragma once
#include "cpu/isa.h"
#include "cpu/views.h"

namespace fastllie {

// Does units `from` to `to`, as `Place` cuts what is interleaved.
using ExposureLoop = void (*)(const Exposure& task, int64_t from, int64_t to);

FASTLLIE_DECLARE(ExposureLoop exposure_loop())

// Does rows `from` to `to`, those of all pictures one after the other.
using LightLoop = void (*)(const Light& task, int64_t from, int64_t to);

FASTLLIE_DECLARE(LightLoop light_loop())

}  // namespace fastllie
