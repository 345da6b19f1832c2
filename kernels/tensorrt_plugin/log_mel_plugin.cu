// The launcher's kernel for float samples.

#include "log_mel.cu"

#include "log_mel_kernels.h"

namespace edgepin {
namespace {

template <int kFftLength, typename Store>
__global__ void __launch_bounds__(kThreads, kBlocksOfMultiprocessor)
    edgepin_log_mel_float(const __grid_constant__ LogMelParams params) {
  log_mel<kFftLength, float, Store>(params);
}

}  // namespace

const void* log_mel_kernel(int fft_length, bool half) {
  if (fft_length == 512) {
    return half ? reinterpret_cast<const void*>(&edgepin_log_mel_float<512, __half>)
                : reinterpret_cast<const void*>(&edgepin_log_mel_float<512, float>);
  }
  return half ? reinterpret_cast<const void*>(&edgepin_log_mel_float<400, __half>)
              : reinterpret_cast<const void*>(&edgepin_log_mel_float<400, float>);
}

}  // namespace edgepin
