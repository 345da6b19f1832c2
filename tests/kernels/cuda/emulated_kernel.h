// The log-mel kernel under the emulation: its four variants for each type of samples, chosen as the launcher's compiler
// options choose them.
#pragma once

#include "emulation.h"

#include "log_mel.cu"

namespace emulation {

template <typename Sample = int16_t>
std::string run_log_mel(int fft_length, bool half, const edgepin::LogMelParams& params, const Launch& shape,
                        const Options& options) {
  // The value that the launch was given, and not what the caller makes of it afterwards.
  const edgepin::LogMelParams p = params;
  Launch launch = shape;
  if (fft_length == 512 && !half) launch.kernel = [&p] { edgepin::log_mel<512, Sample, float>(p); };
  else if (fft_length == 512) launch.kernel = [&p] { edgepin::log_mel<512, Sample, __half>(p); };
  else if (fft_length == 400 && !half) launch.kernel = [&p] { edgepin::log_mel<400, Sample, float>(p); };
  else if (fft_length == 400) launch.kernel = [&p] { edgepin::log_mel<400, Sample, __half>(p); };
  else return "no such kernel";
  if (launch.block.x != edgepin::kThreads) return "the kernel is for blocks of edgepin::kThreads threads";
  return run(launch, options);
}

}  // namespace emulation
