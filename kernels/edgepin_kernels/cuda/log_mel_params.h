// What the log-mel kernel is told: one value, passed by value. Plain C++, for any host: the Python launcher
// mirrors it field by field, and a TensorRT plugin can fill it as it is.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#define EDGEPIN_HOST_DEVICE __host__ __device__
#else
#define EDGEPIN_HOST_DEVICE
#endif

namespace edgepin {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
// That many fit, so that a thread has 48 registers.
constexpr int kBlocksOfMultiprocessor = 10;
// Mel filters are laid out for groups of 32, one for each lane.
constexpr int kMaxMelGroups = 8;
// The taps of a group come in a multiple of this, with weights of 0 for those that no mel of it needs.
constexpr int kTapsAtOnce = 4;

enum Padding : int32_t { kPaddingNone = 0, kPaddingZeros = 1, kPaddingReflect = 2 };
enum Log : int32_t { kLogNone = 0, kLogNatural = 1, kLog10 = 2, kLogDecibel = 3 };
enum Normalize : int32_t { kNormalizeNone = 0, kNormalizeMean = 1, kNormalizeMeanStd = 2 };

// Added to the standard deviation of kNormalizeMeanStd.
constexpr double kDeviationGuard = 1e-5;

// The words of one utterance in the workspace: [0] arrivals, [1] departures, [2] the largest value as an ordered
// key, [3] unused; then, 8-byte aligned, sum_words(normalize) x padded_mels 64-bit words of exact sums. All are zero
// before a launch, and the launch leaves them zero.
constexpr int kHeaderWords = 4;

struct LogMelParams {
  // Device memory of the caller.
  const void* pcm;         // int16_t, or float of full scale 1; utterance u starts pcm_stride * u samples further
  const int32_t* lengths;  // (batch,): samples of each utterance, held to [0, samples]; null: all have `samples`
  void* out;               // (batch, out_frames, num_mels), contiguous; frames beyond an utterance's own are 0
  // Device memory of the plan.
  float* staging;        // (batch, out_frames, num_mels) before the steps over the utterance; `out` if that is float
  uint32_t* workspace;   // batch x workspace_words; only read when several blocks share an utterance
  const float* window;   // (fft_length,): window x amplitude / (2 x frame_length if remove_dc), then zeros; 8-byte aligned
  const float* weights;  // (sum of mel_taps, 32): the taps of each group of mels, one column a lane
  const int32_t* firsts; // (padded_mels,): the bin of each mel's first tap; first + mel_taps stays within the bins
  int64_t pcm_stride;    // samples
  int32_t samples;       // in the longest utterance that the buffers allow for
  int32_t out_frames;
  int32_t frame_length;
  int32_t hop_length;
  int32_t frame_lead;    // samples before the first one at which the first frame starts
  int32_t min_samples;   // an utterance with fewer makes no frame
  int32_t padding;       // Padding
  int32_t drop_last_frame;
  int32_t remove_dc;
  int32_t emphasize;             // 0: no pre-emphasis
  int32_t emphasize_utterance;   // over the utterance, else over the frame
  float keep;                    // 1 - preemphasis
  int32_t num_mels;
  int32_t padded_mels;           // to a multiple of 32
  int32_t mel_taps[kMaxMelGroups];
  int32_t log;                   // Log
  int32_t add_floor;             // the floor is added, else clamped to
  float log_floor;
  float log_of_floor;
  int32_t limit_range;           // whether dynamic_range is there
  float dynamic_range;
  float output_offset;
  float output_scale;
  int32_t normalize;             // Normalize
  int32_t workspace_words;       // 32-bit words of one utterance
};

// 64-bit words of exact sums that one mel needs.
EDGEPIN_HOST_DEVICE constexpr int sum_words(int normalize) {
  return normalize == kNormalizeMeanStd ? 3 : normalize == kNormalizeMean ? 1 : 0;
}

constexpr int workspace_words(int normalize, int padded_mels) {
  return kHeaderWords + 2 * sum_words(normalize) * padded_mels;
}

// Dynamic shared memory of a block, in bytes: the warps' sums of each mel, then its mean and divisor.
constexpr int dynamic_shared_bytes(int normalize, int padded_mels) {
  return normalize == kNormalizeNone ? 0 : padded_mels * (8 * kWarps * sum_words(normalize) + 8);
}

}  // namespace edgepin
