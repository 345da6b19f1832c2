#include "emulated_float.h"

#include "emulated_kernel.h"

std::string run_float_log_mel(const FloatLaunch& launch, const edgepin::LogMelParams& params) {
  const emulation::Launch shape{{launch.blocks, launch.utterances, 1}, {edgepin::kThreads, 1, 1}, launch.shared,
                                launch.cooperative, {}};
  emulation::Options options;
  options.seed = launch.seed;
  return emulation::run_log_mel<float>(launch.fft_length, launch.half, params, shape, options);
}
