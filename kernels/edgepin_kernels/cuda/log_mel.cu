// PCM on the device to the normalized log-mel on the device, in one launch.
//
// A warp computes a frame at a time; the four warps of a block have neighboring frames of one utterance, so that the
// samples under them come from the first-level cache. grid = (blocks of an utterance, utterances), block = kThreads.
// With several blocks an utterance and a step over the utterance (dynamic range, normalization), the launch must be
// cooperative; otherwise nothing waits and any grid will do. The result has the same bits on every grid.
//
// Compiled with EDGEPIN_FFT_LENGTH (512 or 400) and EDGEPIN_STORE_HALF (0 or 1) it is the launcher's kernel, which takes
// 16-bit samples. Without them it has no kernel, and who includes it makes one of edgepin::log_mel.

#include "log_mel_frame.cuh"
#include "log_mel_frame_float.cuh"
#include "log_mel_utterance.cuh"

namespace edgepin {

EDGEPIN_DEVICE float logarithm(const LogMelParams& p, float energy) {
  if (p.log == kLogNone) return energy;
  const bool silent = p.add_floor ? energy == 0.0f : energy <= p.log_floor;
  const float floored = p.add_floor ? energy + p.log_floor : energy;
  float value;
  if (p.log == kLogNatural) {
    value = logf(floored);
  } else {
    value = log10f(floored);
    if (p.log == kLogDecibel) value *= 10.0f;
  }
  return silent ? p.log_of_floor : value;
}

// Frames `first`, first + step, ... of the utterance: finished, or as they are before the steps over the utterance.
// Returns the largest value of this thread's mels.
template <int kFftLength, typename Store, typename Sample>
EDGEPIN_DEVICE float own_frames(const LogMelParams& p, const Utterance<Sample>& utterance,
                                Exchange<kFftLength>* exchanges, Word* sums) {
  const bool direct = !over_utterance(p), sum_at_once = sums_exactly(p) && !p.limit_range;
  // The same for all lanes, and known to be.
  const int warp = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / 32, 0);
  float largest = -INFINITY;
#pragma unroll 1
  for (int frame = first_frame(warp); frame < p.out_frames; frame += frame_step()) {
    // Little is kept from one frame to the next: registers are for the transform.
    const int lane = opaque(threadIdx.x) % 32;
    Exchange<kFftLength>& exchange = exchanges[warp];
    const int64_t row = row_offset(p, frame);
    if (frame >= utterance.frames) {
      // Frames that only longer utterances have.
      for (int mel = lane; mel < p.num_mels; mel += 32) store(static_cast<Store*>(p.out) + row + mel, 0.0f);
      continue;
    }
    {
      float2 points[8];
      windowed_frame<kFftLength>(p, utterance, frame, lane, exchange.samples, points);
      power_spectrum<kFftLength>(points, exchange, lane);
    }
    const float* weights = p.weights + lane;
#pragma unroll 1
    for (int mel = lane, group = 0; group * 32 < p.num_mels; ++group, mel += 32) {
      const float* power = exchange.powers + p.firsts[mel];
      float energy = 0.0f;
      const int taps = p.mel_taps[group];
#pragma unroll 1
      for (int tap = 0; tap < taps; tap += kTapsAtOnce, power += kTapsAtOnce, weights += 32 * kTapsAtOnce) {
#pragma unroll
        for (int next = 0; next < kTapsAtOnce; ++next) energy += power[next] * weights[32 * next];
      }
      if (mel < p.num_mels) {
        const float value = logarithm(p, energy);
        if (direct) {
          store(static_cast<Store*>(p.out) + row + mel, (value + p.output_offset) * p.output_scale);
        } else {
          p.staging[row + mel] = value;
          largest = fmaxf(largest, value);
          if (sum_at_once) add_exactly(p, own_sums(p, sums, warp, mel), value);
        }
      }
    }
    sync_warp<Barrier::kPowerRead>();
  }
  return largest;
}

template <int kFftLength, typename Sample, typename Store>
EDGEPIN_DEVICE void log_mel(const LogMelParams& p) {
  EDGEPIN_STATIC_SHARED(Exchange<kFftLength>, exchanges, kWarps);
  EDGEPIN_STATIC_SHARED(float, maxima, kWarps);
  EDGEPIN_STATIC_SHARED(int, is_last, 1);
  EDGEPIN_DYNAMIC_SHARED(Word, sums);

  const Utterance<Sample> utterance = utterance_of<Sample>(p, blockIdx.y);
  clear_own_sums(p, sums);
  const float largest = own_frames<kFftLength, Store>(p, utterance, exchanges, sums);
  if (!over_utterance(p) || utterance.frames == 0) return;

  // From here on a thread reads of `staging` only what it has written itself.
  Team team = make_team(p, sums);
  float least = -INFINITY;
  if (p.limit_range) {
    least = utterance_maximum(team, largest, maxima) - p.dynamic_range;
    if (sums_exactly(p)) {
#pragma unroll 1
      for (int frame = first_frame(threadIdx.x / 32); frame < utterance.frames; frame += frame_step())
#pragma unroll 1
        for (int mel = threadIdx.x % 32; mel < p.num_mels; mel += 32)
          add_exactly(p, own_sums(p, sums, threadIdx.x / 32, mel), fmaxf(p.staging[row_offset(p, frame) + mel], least));
    }
  }
  if (sums_exactly(p)) {
    exact_statistics(p, team, utterance.frames);
  } else if (p.normalize != kNormalizeNone) {
    energy_statistics(p, team, utterance.frames, least);
  }
#pragma unroll 1
  for (int frame = first_frame(threadIdx.x / 32); frame < utterance.frames; frame += frame_step()) {
    const int64_t row = row_offset(p, frame);
    for (int mel = threadIdx.x % 32; mel < p.num_mels; mel += 32) {
      float value = fmaxf(p.staging[row + mel], least);
      if (p.normalize == kNormalizeNone) {
        value = (value + p.output_offset) * p.output_scale;
      } else {
        const float2 statistics = team.statistics[mel];
        value = (value - statistics.x) * p.output_scale / statistics.y;
      }
      store(static_cast<Store*>(p.out) + row + mel, value);
    }
  }
  if (team.blocks > 1) leave_workspace(p, team, is_last);
}

}  // namespace edgepin

#ifdef EDGEPIN_FFT_LENGTH
extern "C" __global__ void __launch_bounds__(edgepin::kThreads, edgepin::kBlocksOfMultiprocessor)
    edgepin_log_mel(const __grid_constant__ edgepin::LogMelParams params) {
#if EDGEPIN_STORE_HALF
  edgepin::log_mel<EDGEPIN_FFT_LENGTH, int16_t, __half>(params);
#else
  edgepin::log_mel<EDGEPIN_FFT_LENGTH, int16_t, float>(params);
#endif
}
#endif
