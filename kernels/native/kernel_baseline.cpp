#define EDGEPIN_ISA baseline
#define EDGEPIN_LANES 4
#include "kernel_body.h"

namespace edgepin {
#if defined(__ARM_NEON)
const Kernel kBaseline = baseline::make_kernel("neon");
#else
const Kernel kBaseline = baseline::make_kernel("portable");
#endif
}  // namespace edgepin
