#define EDGEPIN_ISA avx512
#define EDGEPIN_LANES 16
#include "kernel_body.h"

namespace edgepin {
const Kernel kAvx512 = avx512::make_kernel("avx512");
}  // namespace edgepin
