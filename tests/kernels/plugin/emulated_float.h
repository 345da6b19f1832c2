// The kernel for float samples under the emulation, apart from what includes CUDA's own headers: both have a float2.
#pragma once

#include <string>

#include "log_mel_params.h"

struct FloatLaunch {
  int fft_length;
  bool half;
  unsigned blocks, utterances, shared;
  bool cooperative;
  unsigned seed;  // of the schedule
};

// Empty, or what the launch did wrong.
std::string run_float_log_mel(const FloatLaunch& launch, const edgepin::LogMelParams& params);
