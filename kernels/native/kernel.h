// What a kernel is told, and what it offers: plain data, the same for every instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgepin {

enum class Log { none, ln, log10, db };
enum class Normalize { none, mean, mean_std };

// One pass of the transform: `groups` transforms of radix * m points, `stride` apart from `at` on. Strides and places are in
// floats of the work buffer.
struct Pass {
  bool first;  // of the transform
  std::size_t radix, at, groups, stride, m, points;
  const float* twiddles;  // (m, radix - 1) complex
  const float* roots;     // (radix) complex, for radices without a butterfly of their own
};

// Two blocks of the last pass that hold each other's mirror bins, or one that holds its own.
struct MirrorBlocks {
  std::size_t at, mirror;
  bool first;  // the one of bin 0
  const float* turns;  // (last radix) complex: what the real transform multiplies each bin of `at` by
};

// A part of the transform that is finished before the next one starts, so that it stays in the cache: the first pass; or,
// of two of its groups that are each other's mirrors, all the other passes.
struct Stage {
  std::size_t first_pass, stop_pass, first_mirrors, stop_mirrors;
};

// Tables for one spec and one number of lanes. The pointers are into the plan, which outlives every call.
struct KernelPlan {
  std::size_t frame_length, hop_length, pairs, points;  // pairs of samples in a frame, complex points of the transform
  bool remove_dc;
  float preemphasis;
  bool emphasis_enters;  // a frame's first sample has the utterance's sample before it, not itself
  int int16_factor;           // int16 samples are multiplied by this, exactly; the window makes up for it
  const float* int16_window;  // (2 pairs), with the samples' scale in it
  const float* float_window;
  const std::size_t* places;  // (points) where a point lies in the work buffer
  std::size_t work_points;    // floats of the work buffer that hold points; mels and spare room follow

  const Stage* stages;
  std::size_t num_stages;
  const Pass* passes;
  const MirrorBlocks* mirrors;
  std::size_t last_radix;

  std::size_t num_mels;
  const std::size_t* mel_counts;  // (num_mels) how many bins
  const std::size_t* mel_places;  // where each bin's power lies, mel after mel
  const float* mel_weights;

  Log log;
  bool add_floor;
  float floor, log_of_floor;

  float dynamic_range;  // infinity for none
  float output_offset, output_scale;
  Normalize normalize;
  double std_guard;
};

// One instruction set's code.
struct Kernel {
  const char* name;
  std::size_t lanes;

  // Frames `samples + i hop_length`, i < `frames` <= lanes, to `out` (frames, num_mels). `work` has `work_floats` floats, aligned
  // to 64 bytes; where emphasis enters, samples[-1] is read too. Whole groups of 2 * lanes samples are read, so up to 2 * lanes - 1 beyond the last frame must be
  // readable, whatever they are.
  void (*int16_block)(const KernelPlan&, const std::int16_t* samples, std::size_t frames, float* work, float* out);
  void (*float_block)(const KernelPlan&, const float* samples, std::size_t frames, float* work, float* out);

  // All that is over the utterance, in place on `values` (frames, num_mels).
  void (*finish)(const KernelPlan&, float* values, std::size_t frames);

  // The largest |sample|, or infinity if one is not finite.
  float (*largest)(const float* samples, std::size_t count);
};

extern const Kernel kBaseline;  // 4 lanes: NEON on aarch64, SSE2 on x86-64, plain code elsewhere
#if defined(EDGEPIN_X86)
extern const Kernel kAvx2, kAvx512;
#endif

}  // namespace edgepin
