// The kernel's variants, by the address that the CUDA runtime launches them by.
#pragma once

namespace edgepin {

// Float samples in, float or half out; for transforms of 512 or 400 points.
const void* log_mel_kernel(int fft_length, bool half);

}  // namespace edgepin
