#define EDGEPIN_ISA avx2
#define EDGEPIN_LANES 8
#include "kernel_body.h"

namespace edgepin {
const Kernel kAvx2 = avx2::make_kernel("avx2");
}  // namespace edgepin
