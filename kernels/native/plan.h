// A plan for one spec: tables, work buffers that are kept between calls, and threads.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "kernel.h"
#include "thread_pool.h"

namespace edgepin {

enum class Padding { none, zeros, reflect };

// `LogMelSpec` and its tables, as Python hands them over (already validated there).
struct PlanOptions {
  std::size_t frame_length, hop_length, fft_length, frame_lead;
  Padding padding;
  bool remove_dc;
  double preemphasis;
  bool preemphasis_over_utterance;
  std::vector<double> window;  // (frame_length)
  double int16_scale, float_scale;
  std::size_t num_mels;
  std::vector<std::int32_t> mel_firsts, mel_counts;
  std::vector<float> mel_weights;
  Log log;
  bool add_floor;
  float floor, log_of_floor, dynamic_range, output_offset, output_scale;  // dynamic_range: infinity for none
  Normalize normalize;
  double std_guard;
};

inline std::size_t round_up(std::size_t value, std::size_t step) { return (value + step - 1) / step * step; }

// The kernels that this processor can run, the fastest first.
std::vector<const Kernel*> available_kernels();

template <class T>
using Aligned = std::unique_ptr<T[], void (*)(T*)>;

class Plan {
 public:
  // Throws std::invalid_argument if no available kernel has the name.
  Plan(const PlanOptions& options, const std::string& kernel, std::size_t threads);

  // `pcm` (batch, samples) to `out` (batch, frames, num_mels), both without gaps. Callable from any number of threads at
  // once, and allocates nothing unless more call at once than ever before.
  void run(const std::int16_t* pcm, std::size_t batch, std::size_t samples, std::size_t frames, float* out);
  void run(const float* pcm, std::size_t batch, std::size_t samples, std::size_t frames, float* out);

  const char* kernel() const { return kernel_->name; }
  std::size_t num_mels() const { return options_.num_mels; }
  // How many frames `run` may be asked for without reading beyond `samples` samples. What padding makes up is not read.
  std::size_t max_frames(std::size_t samples) const;
  float largest(const float* samples, std::size_t count) const { return kernel_->largest(samples, count); }

 private:
  // What one thread works in.
  struct Workspace {
    Aligned<float> work;    // points, mels
    Aligned<float> padded;  // the samples of a block that have to be put together
    Aligned<double> frame;
  };
  class Lease;
  template <class Sample>
  struct Job;

  void build_transform();
  void build_mels();
  template <class Sample>
  void run_job(const Sample* pcm, std::size_t batch, std::size_t samples, std::size_t frames, float* out);
  template <class Sample>
  void run_frames(const Sample* utterance, std::size_t samples, std::size_t first, std::size_t count, Workspace& space,
                  float* out) const;
  bool needs_finish() const;
  std::unique_ptr<Workspace> make_workspace() const;

  PlanOptions options_;
  const Kernel* kernel_;
  bool emphasize_first_ = false;
  KernelPlan tables_{};
  KernelPlan emphasized_tables_{};  // for samples that are emphasized already
  std::size_t work_floats_ = 0, padded_floats_ = 0;
  std::size_t reach_ = 0;  // samples of a frame that a kernel reads

  std::vector<float> int16_window_, float_window_, mel_weights_, turns_;
  std::vector<std::size_t> places_, power_places_, mel_counts_, mel_places_;
  std::vector<std::vector<float>> twiddles_;
  std::vector<Stage> stages_;
  std::vector<Pass> passes_;
  std::vector<MirrorBlocks> mirrors_;

  std::mutex mutex_;  // of the next
  std::vector<std::unique_ptr<Workspace>> idle_;
  ThreadPool pool_;
};

}  // namespace edgepin
