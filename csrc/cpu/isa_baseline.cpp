// The CPU kernels for whatever the compiler's target has: SSE2 on x86-64, NEON on arm64.
#include "cpu/isa_tasks.h"

#define FASTLLIE_SET baseline
#include "cpu/isa_loops.h"
