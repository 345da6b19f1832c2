// From 16-bit samples to the windowed points of one frame, in the registers of one warp.
//
// Samples are whole numbers, so the frame's mean leaves exactly: frame_length x - sum is a whole number below 2^26 and
// is rounded once, when it becomes a float; the division by frame_length is in the window. Pre-emphasis is written as
// (x[n] - x[n-1]) + (1 - preemphasis) x[n-1], whose first term is exact too: what is left of a loud slow wave, a
// thirtieth of it, then has an error that is small against itself and not against the wave.
#pragma once

#include "log_mel_fft.cuh"

namespace edgepin {

// Two samples in a word, the earlier one below.
EDGEPIN_DEVICE int pack(int even, int odd) { return (even & 0xffff) | static_cast<int>(static_cast<uint32_t>(odd) << 16); }
EDGEPIN_DEVICE int even_of(int word) { return static_cast<int16_t>(word & 0xffff); }
EDGEPIN_DEVICE int odd_of(int word) { return word >> 16; }

template <typename Sample>
struct Utterance {
  const Sample* pcm;
  int samples;
  int frames;
};

template <typename Sample>
EDGEPIN_DEVICE Utterance<Sample> utterance_of(const LogMelParams& p, int index) {
  Utterance<Sample> u;
  u.pcm = static_cast<const Sample*>(p.pcm) + index * p.pcm_stride;
  u.samples = p.lengths == nullptr ? p.samples : min(max(p.lengths[index], 0), p.samples);
  if (u.samples < p.min_samples) {
    u.frames = 0;
  } else if (p.padding == kPaddingNone) {
    u.frames = 1 + (u.samples - p.frame_length) / p.hop_length;
  } else {
    u.frames = u.samples / p.hop_length + (p.drop_last_frame ? 0 : 1);
  }
  u.frames = min(u.frames, p.out_frames);
  return u;
}

// The sample that stands at `index` of the padded signal: its index, or -1 where there is a zero.
EDGEPIN_DEVICE int padded_index(const LogMelParams& p, int samples, int index) {
  if (p.padding == kPaddingReflect) {
    index = abs(index);
    if (index >= samples) index = 2 * (samples - 1) - index;
  }
  return index >= 0 && index < samples ? index : -1;
}

// A sample of the frame at `start` and the one before it as pre-emphasis sees it, packed; for 0 <= n < frame_length.
EDGEPIN_DEVICE int sample_pair(const LogMelParams& p, const Utterance<int16_t>& u, int start, int n) {
  const int index = padded_index(p, u.samples, start + n);
  const int now = index < 0 ? 0 : u.pcm[index];
  if (!p.emphasize) return pack(now, 0);
  // What pads the signal is the emphasized one, so that each sample brings its own neighbor ...
  if (p.emphasize_utterance) return pack(now, index <= 0 ? 0 : u.pcm[index - 1]);
  // ... or frames are cut from the padded one, and the first sample stands in for what is before it.
  const int before = padded_index(p, u.samples, start + max(n - 1, 0));
  return pack(now, before < 0 ? 0 : u.pcm[before]);
}

// `scratch` is the warp's own, (kFftLength,), and free again afterwards.
template <int kFftLength>
EDGEPIN_DEVICE void windowed_frame(const LogMelParams& p, const Utterance<int16_t>& u, int frame, int lane, int* scratch,
                                   float2 (&points)[8]) {
  constexpr int kLanes = Shape<kFftLength>::kLanes;
  const int start = frame * p.hop_length - p.frame_lead;
  const int16_t* first = u.pcm + start;
  // Most frames lie inside their utterance and on words. The others go through shared memory, a sample at a time.
  const bool direct = start >= 0 && start + p.frame_length <= u.samples && p.frame_length % 2 == 0 &&
                      (reinterpret_cast<uintptr_t>(first) & 3) == 0;

  int now[8];  // samples n and n + 1, packed, for n = 2 (kLanes r + lane); 0 beyond the frame
  int sum = 0, sum_before = 0;
  if (direct) {
#pragma unroll
    for (int r = 0; r < 8; ++r) {
      const int n = 2 * (kLanes * r + lane);
      now[r] = lane < kLanes && n < p.frame_length ? *reinterpret_cast<const int*>(first + n) : 0;
    }
    if (p.remove_dc) {
#pragma unroll
      for (int r = 0; r < 8; ++r) sum += even_of(now[r]) + odd_of(now[r]);
    }
  } else {
    // All of it: where the frame ends inside a pair, and beyond, the rest is 0.
#pragma unroll 1
    for (int n = lane; n < kFftLength; n += 32) {
      const int pair = n < p.frame_length ? sample_pair(p, u, start, n) : 0;
      scratch[n] = pair;
      sum += even_of(pair);
      sum_before += odd_of(pair);
    }
    sync_warp<Barrier::kSamplesWritten>();
#pragma unroll
    for (int r = 0; r < 8; ++r) {
      const int n = 2 * (kLanes * r + lane);
      now[r] = lane < kLanes ? pack(scratch[n], scratch[n + 1]) : 0;
    }
  }

  int scale = 1;
  if (p.remove_dc) {
    scale = p.frame_length;
    sum = warp_sum(sum);
    if (!p.emphasize) {
      sum_before = 0;
    } else if (!p.emphasize_utterance) {
      sum_before = sum;  // the mean leaves before the frame is emphasized
    } else if (direct) {
      sum_before = sum - first[p.frame_length - 1] + (start > 0 ? first[-1] : 0);
    } else {
      sum_before = warp_sum(sum_before);
    }
  } else {
    sum = sum_before = 0;
  }

  const int rest = sum - sum_before;
  const auto point = [&](int r, int even_before, int odd_before) {
    const int even = even_of(now[r]), odd = odd_of(now[r]);
    // Beyond the frame the window is 0.
    float2 window = make_float2(0.0f, 0.0f);
    if (lane < kLanes) window = reinterpret_cast<const float2*>(p.window)[kLanes * r + lane];
    return make_float2((static_cast<float>(scale * (even - even_before) - rest) +
                        p.keep * static_cast<float>(scale * even_before - sum_before)) * window.x,
                       (static_cast<float>(scale * (odd - odd_before) - rest) +
                        p.keep * static_cast<float>(scale * odd_before - sum_before)) * window.y);
  };
  if (p.emphasize_utterance && !direct) {
#pragma unroll
    for (int r = 0; r < 8; ++r) {
      const int n = 2 * (kLanes * r + lane);
      points[r] = lane < kLanes ? point(r, odd_of(scratch[n]), odd_of(scratch[n + 1])) : make_float2(0.0f, 0.0f);
    }
  } else {
    // Before an even sample is the odd one of the lane below; before lane 0, that of the last lane one r earlier.
    const int mask = p.emphasize ? -1 : 0, below = lane == 0 ? kLanes - 1 : lane - 1;
    int even_before[8];
#pragma unroll
    for (int r = 0; r < 8; ++r) even_before[r] = odd_of(__shfl_sync(kAllLanes, now[r], below)) & mask;
    if (lane == 0) {
#pragma unroll
      for (int r = 7; r > 0; --r) even_before[r] = even_before[r - 1];
      even_before[0] = (p.emphasize_utterance ? (start > 0 ? first[-1] : 0) : even_of(now[0])) & mask;
    }
#pragma unroll
    for (int r = 0; r < 8; ++r) points[r] = point(r, even_before[r], even_of(now[r]) & mask);
  }
  sync_warp<Barrier::kSamplesRead>();
}

}  // namespace edgepin
