// What isa_*.cpp includes after its target: every loop, in the namespace FASTLLIE_SET. With FASTLLIE_BF16
// only those that multiply pairs of bfloat16, with FASTLLIE_TILES those that multiply tiles of them.
#include "curve.h"
#include "gridcurve.h"
#include "sci.h"
#include "smoothness.h"
#include "zero_reference.h"

namespace fastllie::FASTLLIE_SET {
#include "cpu/simd.h"

#include "cpu/pack.h"

#include "cpu/transpose.h"

#include "cpu/convolution_block.h"
#include "cpu/convolution_gather.h"

#include "cpu/zerodce_loops.h"

#if defined(FASTLLIE_TILES)
#include "cpu/convolution_tiles.h"

#include "cpu/convolution_tiles_loops.h"
#include "cpu/zerodce_tiles_loops.h"
#else
#include "cpu/convolution_multiply.h"
#include "cpu/winograd.h"

#include "cpu/convolution_loops.h"
#include "cpu/zerodce_winograd_loops.h"
#endif

#if !defined(FASTLLIE_TILES) && !defined(FASTLLIE_BF16)
#include "cpu/smoothness_rows_loops.h"

#include "cpu/convolution_training_loops.h"
#include "cpu/curve_loops.h"
#include "cpu/exposure_loops.h"
#include "cpu/gridcurve_loops.h"
#include "cpu/illumination_loops.h"
#include "cpu/sci_loops.h"
#include "cpu/smoothness_loops.h"
#include "cpu/zero_reference_loops.h"
#include "cpu/zerodcepp_loops.h"

#include "cpu/zerodcepp_maps_loops.h"
#endif

#if !defined(FASTLLIE_BF16)
#include "cpu/dawn_loops.h"

#if defined(FASTLLIE_TILES)
#include "cpu/dawn_tiles_loops.h"
#else
#include "cpu/dawn_level_loops.h"
#endif

#include "cpu/dawn_rows_loops.h"

#include "cpu/dawn_look_loops.h"

#if !defined(FASTLLIE_TILES)
#include "cpu/dawn_brain_loops.h"
#endif
#endif
}  // namespace fastllie::FASTLLIE_SET
