// What a LogMel node computes, out of its attributes, and what the kernel is told of it. Plain C++.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "log_mel_params.h"

namespace edgepin {

// The attributes of the node, as `edgepin_kernels` writes them.
struct LogMelAttributes {
  std::string spec;                 // the JSON of the LogMelSpec
  std::vector<float> window;        // (frame_length,)
  std::vector<int32_t> mel_firsts;  // (num_mels,): the first bin of each mel
  std::vector<int32_t> mel_counts;  // (num_mels,): how many bins it has
  std::vector<float> mel_weights;   // (sum of mel_counts,): their weights, mel after mel
};

// What lies in the device's memory.
struct LogMelTables {
  std::vector<float> window;   // (fft_length,)
  std::vector<float> weights;  // (sum of mel_taps, 32)
  std::vector<int32_t> firsts; // (padded_mels,)
};

class LogMelDefinition {
 public:
  // Throws std::invalid_argument: an attribute is not what the kernel can take. Nothing that passes lets the kernel reach
  // beyond its memory.
  explicit LogMelDefinition(LogMelAttributes attributes);

  const LogMelAttributes& attributes() const { return attributes_; }
  const LogMelTables& tables() const { return tables_; }
  int fft_length() const { return fft_length_; }
  // All but the addresses and the sizes of a call.
  const LogMelParams& params() const { return params_; }

  bool over_utterance() const { return params_.limit_range || params_.normalize != kNormalizeNone; }
  // 0 when there are too few samples for one frame.
  int64_t frames(int64_t samples) const;
  // Throws std::invalid_argument: the kernel cannot take so many utterances or samples, or so few samples.
  void check_sizes(int64_t batch, int64_t samples) const;
  // How many blocks share an utterance when `resident` blocks run at the same time; see the launcher in Python.
  int blocks_per_utterance(int64_t batch, int64_t frames, int64_t resident) const;

 private:
  void read_spec();
  void lay_out_mels();

  LogMelAttributes attributes_;
  LogMelTables tables_;
  LogMelParams params_{};
  int fft_length_ = 0;
  bool int16_amplitude_ = false;
};

}  // namespace edgepin
