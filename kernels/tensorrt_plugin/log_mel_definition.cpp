#include "log_mel_definition.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "json_object.h"

namespace edgepin {
namespace {

// As in _cuda_params.py.
constexpr int64_t kMaxBatch = 65'535;
constexpr int64_t kMaxSamples = (int64_t{1} << 31) - (int64_t{1} << 18);
constexpr int64_t kMaxNormalizedFrames = 1 << 20;
constexpr int64_t kWaves = 8;

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument(what); }

// The keys of the spec, each of which is to be asked for exactly once.
class Spec {
 public:
  explicit Spec(const std::string& text) : values_(parse_json_object(text)) {}

  int integer(const char* key, int least, int most) {
    const double number = real(key, least, most);
    if (number != std::floor(number)) refuse(std::string("spec: ") + key + " is not a whole number");
    return static_cast<int>(number);
  }

  double real(const char* key, double least, double most) {
    const JsonValue value = take(key);
    const double* number = std::get_if<double>(&value);
    if (!number || *number < least || *number > most) refuse(std::string("spec: ") + key + " is out of range");
    return *number;
  }

  bool boolean(const char* key) {
    const JsonValue value = take(key);
    const bool* found = std::get_if<bool>(&value);
    if (!found) refuse(std::string("spec: ") + key + " is not a boolean");
    return *found;
  }

  bool is_null(const char* key) const {
    const auto found = values_.find(key);
    return found != values_.end() && std::holds_alternative<std::nullptr_t>(found->second);
  }

  // Its place in `choices`.
  int choice(const char* key, const std::vector<std::string>& choices) {
    const JsonValue value = take(key);
    const std::string* name = std::get_if<std::string>(&value);
    const auto found = name ? std::find(choices.begin(), choices.end(), *name) : choices.end();
    if (found == choices.end()) refuse(std::string("spec: ") + key + " is a choice that this plugin does not know");
    return static_cast<int>(found - choices.begin());
  }

  // It is in the tables already.
  void skip(const char* key) { take(key); }

  void require_empty() const {
    if (!values_.empty()) refuse("spec: this plugin does not know " + values_.begin()->first);
  }

 private:
  JsonValue take(const char* key) {
    auto node = values_.extract(key);
    if (node.empty()) refuse(std::string("spec: ") + key + " is missing");
    return node.mapped();
  }

  std::map<std::string, JsonValue> values_;
};

double log_of_floor(int log, double floor) {
  if (log == kLogNone) return 0.0;
  if (log == kLogNatural) return std::log(floor);
  return std::log10(floor) * (log == kLogDecibel ? 10.0 : 1.0);
}

}  // namespace

LogMelDefinition::LogMelDefinition(LogMelAttributes attributes) : attributes_(std::move(attributes)) {
  read_spec();
  const size_t frame_length = static_cast<size_t>(params_.frame_length);
  if (attributes_.window.size() != frame_length)
    refuse("window has " + std::to_string(attributes_.window.size()) + " values for a frame of " +
           std::to_string(frame_length));
  // The kernel splits the real transform without its half, and removes the mean from frame_length times the samples,
  // which it counts in units of 16 bits.
  const double amplitude = int16_amplitude_ ? 1.0 : 1.0 / 32768.0;
  const double scale = amplitude / (2.0 * (params_.remove_dc ? params_.frame_length : 1));
  tables_.window.assign(static_cast<size_t>(fft_length_), 0.0f);
  std::transform(attributes_.window.begin(), attributes_.window.end(), tables_.window.begin(),
                 [scale](float value) { return static_cast<float>(value * scale); });
  lay_out_mels();
}

void LogMelDefinition::read_spec() {
  Spec spec(attributes_.spec);
  LogMelParams& p = params_;
  fft_length_ = spec.integer("fft_length", 400, 512);
  if (fft_length_ != 400 && fft_length_ != 512)
    refuse("spec: the kernel has transforms of 400 and 512 points, not of " + std::to_string(fft_length_));
  p.frame_length = spec.integer("frame_length", 2, fft_length_);
  p.hop_length = spec.integer("hop_length", 1, 65'536);
  p.padding = spec.choice("padding", {"none", "zeros", "reflect"});
  p.drop_last_frame = spec.boolean("drop_last_frame");
  if (p.drop_last_frame && p.padding == kPaddingNone) refuse("spec: drop_last_frame without padding");
  p.remove_dc = spec.boolean("remove_dc");
  const double preemphasis = spec.real("preemphasis", 0.0, 1.0);
  p.emphasize = preemphasis != 0.0;
  p.keep = static_cast<float>(1.0 - preemphasis);
  p.emphasize_utterance = spec.choice("preemphasis_over", {"frame", "utterance"});
  p.num_mels = spec.integer("num_mels", 1, fft_length_ / 2);
  p.log = spec.choice("log", {"none", "ln", "log10", "db"});
  p.add_floor = spec.choice("floor_mode", {"clamp", "add"});
  const double floor = spec.real("log_floor", std::numeric_limits<float>::min(), 1.0);
  p.log_floor = static_cast<float>(floor);
  p.log_of_floor = static_cast<float>(log_of_floor(p.log, floor));
  p.limit_range = !spec.is_null("dynamic_range");
  if (p.limit_range) {
    p.dynamic_range = static_cast<float>(spec.real("dynamic_range", 0.0, 1e3));
  } else {
    spec.skip("dynamic_range");
  }
  constexpr double kAny = std::numeric_limits<float>::max();
  p.output_offset = static_cast<float>(spec.real("output_offset", -kAny, kAny));
  p.output_scale = static_cast<float>(spec.real("output_scale", -kAny, kAny));
  p.normalize = spec.choice("normalize", {"none", "mean", "mean_std"});
  int16_amplitude_ = spec.choice("amplitude", {"unit", "int16"}) == 1;
  for (const char* key : {"sample_rate", "window", "window_periodic", "low_hz", "high_hz", "mel_scale", "triangles", "mel_norm"})
    spec.skip(key);
  spec.require_empty();

  p.padded_mels = (p.num_mels + 31) / 32 * 32;
  p.workspace_words = workspace_words(p.normalize, p.padded_mels);
  // The window lies in the middle of the transform, and the transform's middle on the hop.
  p.frame_lead = p.padding == kPaddingNone ? 0 : fft_length_ / 2 - (fft_length_ - p.frame_length) / 2;
  const int whole_hop = p.drop_last_frame ? p.hop_length : 1;
  if (p.padding == kPaddingNone) {
    p.min_samples = p.frame_length;
  } else if (p.padding == kPaddingZeros) {
    p.min_samples = whole_hop;
  } else {
    // A reflection does not repeat the sample at the end, so it reaches one less than there are.
    p.min_samples = std::max({whole_hop, p.frame_lead + 1, p.frame_length - p.frame_lead + 1});
  }
}

// A lane reads as many bins as the widest mel of its group of 32, in whole steps; those that its mel does not have get
// weight 0, and lie within the spectrum.
void LogMelDefinition::lay_out_mels() {
  const std::vector<int32_t>&firsts = attributes_.mel_firsts, &counts = attributes_.mel_counts;
  const int bins = fft_length_ / 2 + 1, mels = params_.num_mels;
  if (firsts.size() != static_cast<size_t>(mels) || counts.size() != static_cast<size_t>(mels))
    refuse("mel_firsts and mel_counts must have one value for each of " + std::to_string(mels) + " mels");
  for (int mel = 0; mel < mels; ++mel) {
    // No mel has bin 0, so that rounded up they still lie within the spectrum.
    const bool inside = counts[mel] >= 0 && counts[mel] < bins && firsts[mel] >= (counts[mel] ? 1 : 0) &&
                        firsts[mel] <= bins - counts[mel];
    if (!inside) refuse("mel_firsts and mel_counts reach beyond the spectrum");
  }
  const int64_t taps = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  if (static_cast<int64_t>(attributes_.mel_weights.size()) != taps)
    refuse("mel_weights has " + std::to_string(attributes_.mel_weights.size()) + " values, and mel_counts says " +
           std::to_string(taps));

  tables_.firsts.assign(static_cast<size_t>(params_.padded_mels), 0);
  size_t weight = 0, row = 0;
  for (int group = 0; 32 * group < mels; ++group) {
    const int first_mel = 32 * group, last_mel = std::min(first_mel + 32, mels);
    int widest = *std::max_element(counts.begin() + first_mel, counts.begin() + last_mel);
    widest = (widest + kTapsAtOnce - 1) / kTapsAtOnce * kTapsAtOnce;
    params_.mel_taps[group] = widest;
    tables_.weights.resize(tables_.weights.size() + 32 * static_cast<size_t>(widest), 0.0f);
    for (int mel = first_mel; mel < last_mel; ++mel) {
      const int first = std::min(firsts[mel], bins - widest);
      tables_.firsts[static_cast<size_t>(mel)] = first;
      for (int tap = 0; tap < counts[mel]; ++tap) {
        const size_t at = 32 * (row + static_cast<size_t>(firsts[mel] - first + tap)) + static_cast<size_t>(mel - first_mel);
        tables_.weights[at] = attributes_.mel_weights[weight++];
      }
    }
    row += static_cast<size_t>(widest);
  }
}

int64_t LogMelDefinition::frames(int64_t samples) const {
  const LogMelParams& p = params_;
  if (samples < p.min_samples) return 0;
  if (p.padding == kPaddingNone) return 1 + (samples - p.frame_length) / p.hop_length;
  return samples / p.hop_length + (p.drop_last_frame ? 0 : 1);
}

void LogMelDefinition::check_sizes(int64_t batch, int64_t samples) const {
  if (samples < params_.min_samples)
    refuse(std::to_string(samples) + " samples are too few for one frame; at least " +
           std::to_string(params_.min_samples) + " are needed");
  if (batch < 1 || batch > kMaxBatch)
    refuse("a batch of " + std::to_string(batch) + "; 1 to " + std::to_string(kMaxBatch) + " utterances go into a call");
  if (samples > kMaxSamples)
    refuse(std::to_string(samples) + " samples an utterance; at most " + std::to_string(kMaxSamples) + " go into a call");
  if (params_.normalize != kNormalizeNone && frames(samples) > kMaxNormalizedFrames)
    refuse(std::to_string(frames(samples)) + " frames cannot be normalized together; at most " +
           std::to_string(kMaxNormalizedFrames) + " can");
}

int LogMelDefinition::blocks_per_utterance(int64_t batch, int64_t frames, int64_t resident) const {
  const int64_t useful = (frames + kWarps - 1) / kWarps;
  int64_t blocks = resident / batch;
  if (!over_utterance()) {
    blocks = kWaves * std::max<int64_t>(resident, 1) / batch;
  } else if (params_.normalize != kNormalizeNone && params_.log == kLogNone) {
    blocks = 1;  // sums that are not exact have one order, that of one block
  }
  return static_cast<int>(std::max<int64_t>(1, std::min(useful, blocks)));
}

}  // namespace edgepin
