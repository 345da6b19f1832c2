#include "plan.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <new>
#include <numeric>
#include <stdexcept>
#include <type_traits>

namespace edgepin {
namespace {

// int16 samples are multiplied by the frame's length before its sum is subtracted, in 32 bits.
constexpr std::size_t kLongestExactFrame = 32767;

template <class T>
Aligned<T> allocate(std::size_t count) {
  void* memory = std::aligned_alloc(64, round_up(std::max<std::size_t>(count, 1) * sizeof(T), 64));
  if (memory == nullptr) throw std::bad_alloc();
  std::fill_n(static_cast<T*>(memory), count, T(0));
  return {static_cast<T*>(memory), [](T* p) { std::free(p); }};
}

}  // namespace

std::vector<const Kernel*> available_kernels() {
  std::vector<const Kernel*> kernels;
#if defined(EDGEPIN_X86)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    kernels.push_back(&kAvx512);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) kernels.push_back(&kAvx2);
#endif
  kernels.push_back(&kBaseline);
  return kernels;
}

Plan::Plan(const PlanOptions& options, const std::string& kernel, std::size_t threads)
    : options_(options), kernel_(nullptr), pool_(threads) {
  for (const Kernel* one : available_kernels())
    if (kernel_ == nullptr && kernel == one->name) kernel_ = one;
  if (kernel_ == nullptr) throw std::invalid_argument("this processor has no kernel " + kernel);

  const std::size_t lanes = kernel_->lanes;
  tables_.frame_length = options_.frame_length;
  tables_.hop_length = options_.hop_length;
  tables_.pairs = (options_.frame_length + 1) / 2;
  tables_.points = options_.fft_length / 2;
  reach_ = round_up(2 * tables_.pairs, 2 * lanes);
  tables_.remove_dc = options_.remove_dc;
  // Removing the mean of frames of emphasized samples takes samples that are emphasized before.
  emphasize_first_ = options_.preemphasis_over_utterance && options_.remove_dc;
  tables_.preemphasis = emphasize_first_ ? 0.0f : static_cast<float>(options_.preemphasis);
  tables_.emphasis_enters = options_.preemphasis_over_utterance && !emphasize_first_;
  tables_.int16_factor = options_.remove_dc && options_.frame_length <= kLongestExactFrame
                             ? static_cast<int>(options_.frame_length)
                             : 1;
  // A half each, as the real transform is made of sums of two bins that are not halved.
  int16_window_.assign(2 * tables_.pairs, 0.0f);
  float_window_.assign(2 * tables_.pairs, 0.0f);
  for (std::size_t i = 0; i < options_.frame_length; ++i) {
    const double half = 0.5 * options_.window[i];
    int16_window_[i] = static_cast<float>(half * options_.int16_scale / tables_.int16_factor);
    float_window_[i] = static_cast<float>(half * options_.float_scale);
  }
  tables_.int16_window = int16_window_.data();
  tables_.float_window = float_window_.data();

  build_transform();
  build_mels();
  tables_.log = options_.log;
  tables_.add_floor = options_.add_floor;
  tables_.floor = options_.floor;
  tables_.log_of_floor = options_.log_of_floor;
  tables_.dynamic_range = options_.dynamic_range;
  tables_.output_offset = options_.output_offset;
  tables_.output_scale = options_.output_scale;
  tables_.normalize = options_.normalize;
  tables_.std_guard = options_.std_guard;
  emphasized_tables_ = tables_;
  emphasized_tables_.preemphasis = 0.0f;
  emphasized_tables_.emphasis_enters = false;
  if (emphasize_first_) {
    emphasized_tables_.remove_dc = false;
    emphasized_tables_.hop_length = reach_;
  }

  padded_floats_ = (lanes - 1) * std::max(options_.hop_length, reach_) + reach_;
  idle_.reserve(2 * threads);
  for (std::size_t i = 0; i < threads; ++i) idle_.push_back(make_workspace());
}

void Plan::build_mels() {
  tables_.num_mels = options_.num_mels;
  mel_weights_ = options_.mel_weights;
  for (std::size_t m = 0; m < options_.num_mels; ++m) {
    mel_counts_.push_back(options_.mel_counts[m]);
    for (std::int32_t i = 0; i < options_.mel_counts[m]; ++i)
      mel_places_.push_back(power_places_[options_.mel_firsts[m] + i]);
  }
  tables_.mel_counts = mel_counts_.data();
  tables_.mel_places = mel_places_.data();
  tables_.mel_weights = mel_weights_.data();
}

std::unique_ptr<Plan::Workspace> Plan::make_workspace() const {
  return std::unique_ptr<Workspace>(new Workspace{
      allocate<float>(work_floats_), allocate<float>(padded_floats_), allocate<double>(options_.frame_length)});
}

// A workspace for as long as a thread needs one.
class Plan::Lease {
 public:
  explicit Lease(Plan& plan) : plan_(plan) {
    {
      const std::lock_guard<std::mutex> lock(plan.mutex_);
      if (!plan.idle_.empty()) {
        space_ = std::move(plan.idle_.back());
        plan.idle_.pop_back();
      }
    }
    if (!space_) space_ = plan.make_workspace();
  }
  ~Lease() {
    const std::lock_guard<std::mutex> lock(plan_.mutex_);
    plan_.idle_.push_back(std::move(space_));
  }
  Workspace& operator*() { return *space_; }

 private:
  Plan& plan_;
  std::unique_ptr<Workspace> space_;
};

std::size_t Plan::max_frames(std::size_t samples) const {
  if (options_.padding != Padding::none) return samples / options_.hop_length + 1;
  if (samples < options_.frame_length) return 0;
  return (samples - options_.frame_length) / options_.hop_length + 1;
}

bool Plan::needs_finish() const {
  return options_.normalize != Normalize::none || std::isfinite(options_.dynamic_range) ||
         options_.output_offset != 0.0f || options_.output_scale != 1.0f;
}

void Plan::run(const std::int16_t* pcm, std::size_t batch, std::size_t samples, std::size_t frames, float* out) {
  run_job(pcm, batch, samples, frames, out);
}

void Plan::run(const float* pcm, std::size_t batch, std::size_t samples, std::size_t frames, float* out) {
  run_job(pcm, batch, samples, frames, out);
}

template <class Sample>
struct Plan::Job {
  Plan& plan;
  const Sample* pcm;
  std::size_t batch, samples, frames;
  float* out;
  std::size_t frames_a_task;  // all of an utterance's, or a part of them
  std::atomic<std::size_t> next{0};

  float* values(std::size_t utterance) const { return out + utterance * frames * plan.options_.num_mels; }

  static void compute(void* context) {
    Job& job = *static_cast<Job*>(context);
    const std::size_t parts = (job.frames + job.frames_a_task - 1) / job.frames_a_task;
    Lease space(job.plan);
    for (std::size_t task; (task = job.next.fetch_add(1)) < job.batch * parts;) {
      const std::size_t utterance = task / parts, first = task % parts * job.frames_a_task;
      const std::size_t count = std::min(job.frames_a_task, job.frames - first);
      job.plan.run_frames(job.pcm + utterance * job.samples, job.samples, first, count, *space,
                          job.values(utterance) + first * job.plan.options_.num_mels);
      if (parts == 1) job.plan.kernel_->finish(job.plan.tables_, job.values(utterance), job.frames);
    }
  }

  static void finish(void* context) {
    Job& job = *static_cast<Job*>(context);
    for (std::size_t utterance; (utterance = job.next.fetch_add(1)) < job.batch;)
      job.plan.kernel_->finish(job.plan.tables_, job.values(utterance), job.frames);
  }
};

template <class Sample>
void Plan::run_job(const Sample* pcm, std::size_t batch, std::size_t samples, std::size_t frames, float* out) {
  if (batch == 0) return;
  Job<Sample> job{*this, pcm, batch, samples, frames, out, frames};
  const std::size_t threads = pool_.threads();
  if (threads == 1) {
    Job<Sample>::compute(&job);
    return;
  }
  if (batch < 4 * threads) {
    // Few utterances: parts of them, so that all threads have about the same to do.
    const std::size_t parts = (4 * threads + batch - 1) / batch;
    job.frames_a_task = std::min(frames, round_up((frames + parts - 1) / parts, kernel_->lanes));
  }
  pool_.run(Job<Sample>::compute, &job);
  if (job.frames_a_task < frames && needs_finish()) {
    job.next = 0;
    pool_.run(Job<Sample>::finish, &job);
  }
}

namespace {

// Samples `from` to `from + count` of an utterance with its padding; zeros also where nothing looks at them.
template <class Get, class Padded>
void fill(Get get, std::size_t samples, std::ptrdiff_t from, std::size_t count, bool reflect, Padded* padded) {
  const auto put = [&](std::ptrdiff_t index) { return static_cast<Padded>(get(index)); };
  const std::ptrdiff_t total = static_cast<std::ptrdiff_t>(samples);
  std::size_t i = 0;
  const auto outside = [&](std::size_t stop) {
    for (; i < stop; ++i) {
      std::ptrdiff_t index = from + static_cast<std::ptrdiff_t>(i);
      if (reflect) {
        index = index < 0 ? -index : index;
        index = index >= total ? 2 * (total - 1) - index : index;
      }
      padded[i] = index >= 0 && index < total ? put(index) : Padded(0);
    }
  };
  const std::ptrdiff_t head = std::clamp<std::ptrdiff_t>(-from, 0, count);
  const std::ptrdiff_t tail = std::clamp<std::ptrdiff_t>(total - from, head, count);
  outside(head);
  for (; i < static_cast<std::size_t>(tail); ++i) padded[i] = put(from + static_cast<std::ptrdiff_t>(i));
  outside(count);
}

}  // namespace

template <class Sample>
void Plan::run_frames(const Sample* utterance, std::size_t samples, std::size_t first, std::size_t count,
                      Workspace& space, float* out) const {
  constexpr bool integer = std::is_same_v<Sample, std::int16_t>;
  const std::size_t lanes = kernel_->lanes, reach = reach_;
  const bool reflect = options_.padding == Padding::reflect;
  // What int16 samples cannot do exactly is done on floats of full scale 1.
  const bool convert =
      emphasize_first_ || (integer && options_.remove_dc && options_.frame_length > kLongestExactFrame);
  const auto sample = [&](std::ptrdiff_t i) {
    return integer ? static_cast<float>(utterance[i]) * (1.0f / 32768) : static_cast<float>(utterance[i]);
  };
  const auto emphasized = [&](std::ptrdiff_t i) {
    const double before = i > 0 ? sample(i - 1) : 0.0f;
    return sample(i) - options_.preemphasis * before;
  };

  for (std::size_t stop = first + count; first < stop; first += lanes) {
    const std::size_t frames = std::min(lanes, stop - first);
    const std::ptrdiff_t from = static_cast<std::ptrdiff_t>(first * options_.hop_length) -
                                static_cast<std::ptrdiff_t>(options_.frame_lead);
    const std::size_t length = (frames - 1) * options_.hop_length + reach;
    const bool inside = from >= (tables_.emphasis_enters ? 1 : 0) &&
                        static_cast<std::size_t>(from) + length <= samples;
    float* const work = space.work.get();
    float* const padded = space.padded.get();
    if (inside && !convert) {
      if constexpr (integer)
        kernel_->int16_block(tables_, utterance + from, frames, work, out);
      else
        kernel_->float_block(tables_, utterance + from, frames, work, out);
    } else if (emphasize_first_) {
      // Frame by frame in double: in float, a large offset would cost the small bits before the mean takes it away.
      for (std::size_t i = 0; i < frames; ++i) {
        double* const frame = space.frame.get();
        const std::size_t size = options_.frame_length;
        fill(emphasized, samples, from + static_cast<std::ptrdiff_t>(i * options_.hop_length), size, reflect, frame);
        const double mean = std::accumulate(frame, frame + size, 0.0) / static_cast<double>(size);
        std::transform(frame, frame + size, padded + i * reach, [&](double x) { return static_cast<float>(x - mean); });
      }
      kernel_->float_block(emphasized_tables_, padded, frames, work, out);
    } else if (options_.preemphasis_over_utterance) {
      fill(emphasized, samples, from, length, reflect, padded);
      kernel_->float_block(emphasized_tables_, padded, frames, work, out);
    } else if (convert || !integer) {
      fill(sample, samples, from, length, reflect, padded);
      kernel_->float_block(tables_, padded, frames, work, out);
    } else if constexpr (integer) {
      Sample* const copied = reinterpret_cast<Sample*>(padded);
      fill([&](std::ptrdiff_t i) { return utterance[i]; }, samples, from, length, reflect, copied);
      kernel_->int16_block(tables_, copied, frames, work, out);
    }
    out += frames * options_.num_mels;
  }
}

}  // namespace edgepin
