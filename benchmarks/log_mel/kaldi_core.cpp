// kaldi-native-fbank's C++ core, without Python between the frames: compiled against the headers of the installed wheel and
// linked to its extension module, so that what is timed is the code that the wheel ships.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kaldi-native-fbank/csrc/feature-fbank.h"
#include "kaldi-native-fbank/csrc/feature-window.h"
#include "kaldi-native-fbank/csrc/online-feature.h"

namespace {

struct Core {
  knf::FbankOptions options;
  knf::FbankComputer computer;
  knf::FeatureWindowFunction window;
  std::vector<std::vector<float>> utterances;
  std::vector<float> frame;

  explicit Core(const knf::FbankOptions& options)
      : options(options), computer(options), window(options.frame_opts) {}
};

// Whether the work was done: no exception may leave a function that C calls.
template <class Work>
bool try_all(const Core& core, Work work) {
  try {
    for (const std::vector<float>& wave : core.utterances) work(wave);
    return true;
  } catch (...) {
    return false;
  }
}

}  // namespace

extern "C" {

void* core_new(float sample_rate, float frame_ms, float hop_ms, float preemphasis, std::int32_t mels, float low_hz,
               float high_hz) {
  knf::FbankOptions options;
  options.frame_opts.samp_freq = sample_rate;
  options.frame_opts.frame_length_ms = frame_ms;
  options.frame_opts.frame_shift_ms = hop_ms;
  options.frame_opts.preemph_coeff = preemphasis;
  options.frame_opts.dither = 0;
  options.mel_opts.num_bins = mels;
  options.mel_opts.low_freq = low_hz;
  options.mel_opts.high_freq = high_hz;
  return new Core(options);
}

// The samples as the vectors that the core reads, before any clock runs.
void core_load(void* handle, const float* samples, std::int32_t batch, std::int32_t count) {
  auto& core = *static_cast<Core*>(handle);
  core.utterances.clear();
  for (std::int32_t i = 0; i < batch; ++i, samples += count) core.utterances.emplace_back(samples, samples + count);
}

// Frame by frame with tables that were made once: no stream, no copies.
bool core_frames(void* handle, float* out) {
  auto& core = *static_cast<Core*>(handle);
  return try_all(core, [&](const std::vector<float>& wave) {
    const auto frames = knf::NumFrames(static_cast<std::int64_t>(wave.size()), core.options.frame_opts, true);
    for (std::int32_t i = 0; i < frames; ++i, out += core.computer.Dim()) {
      // The transform is in place, and extracting a frame leaves what lies behind it.
      std::fill(core.frame.begin(), core.frame.end(), 0.0f);
      knf::ExtractWindow(0, wave, i, core.options.frame_opts, core.window, &core.frame);
      core.computer.Compute(0, 1.0f, &core.frame, out);
    }
  });
}

// As an application uses it: a stream for each utterance, and its frames copied out.
bool core_online(void* handle, float* out) {
  auto& core = *static_cast<Core*>(handle);
  return try_all(core, [&](const std::vector<float>& wave) {
    knf::OnlineFbank stream(core.options);
    stream.AcceptWaveform(core.options.frame_opts.samp_freq, wave.data(), static_cast<std::int32_t>(wave.size()));
    stream.InputFinished();
    for (std::int32_t i = 0; i < stream.NumFramesReady(); ++i, out += stream.Dim())
      std::memcpy(out, stream.GetFrame(i), sizeof(float) * stream.Dim());
  });
}
}
