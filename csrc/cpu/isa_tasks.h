// What isa_*.cpp includes before its target. Standard headers are here: what they define is shared with code
// for every machine.
#pragma once
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "cpu/convolution_task.h"
#include "cpu/convolution_training_task.h"
#include "cpu/curve_task.h"
#include "cpu/dawn_brain_task.h"
#include "cpu/dawn_task.h"
#include "cpu/exposure_task.h"
#include "cpu/gridcurve_task.h"
#include "cpu/illumination_task.h"
#include "cpu/sci_task.h"
#include "cpu/smoothness_task.h"
#include "cpu/zero_reference_task.h"
#include "cpu/zerodce_task.h"
#include "cpu/zerodcepp_task.h"
