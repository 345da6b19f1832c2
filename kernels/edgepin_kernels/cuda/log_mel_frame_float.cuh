// The same from float samples of full scale 1, as a TensorRT plugin gets them.
//
// Counted in units of a 16-bit sample, those that came from one are whole numbers, and floats hold every sum and product
// below exactly, or round it once in a fused multiply-add where the other kernel rounds it once as it becomes a float. So
// PCM of 16 bits has the same bits in both. Samples in between, and beyond full scale, are taken as they are: their sum
// then has the rounding of a sum of floats.
#pragma once

#include "log_mel_frame.cuh"

namespace edgepin {

constexpr float kFullScale = 32768.0f;

// A sample of the frame at `start` and the one before it as pre-emphasis sees it, in units of a 16-bit sample; 0 beyond
// the frame.
EDGEPIN_DEVICE float2 sample_pair(const LogMelParams& p, const Utterance<float>& u, int start, int n, bool inside) {
  float2 pair = make_float2(0.0f, 0.0f);
  if (n < p.frame_length) {
    const int index = inside ? start + n : padded_index(p, u.samples, start + n);
    if (index >= 0) pair.x = u.pcm[index] * kFullScale;
    if (p.emphasize) {
      int before = index - 1;
      if (!p.emphasize_utterance) {
        before = start + max(n - 1, 0);
        if (!inside) before = padded_index(p, u.samples, before);
      }
      if (before >= 0) pair.y = u.pcm[before] * kFullScale;
    }
  }
  return pair;
}

// As that of 16-bit samples, but that it needs no scratch: what a lane needs comes from the first-level cache.
template <int kFftLength>
EDGEPIN_DEVICE void windowed_frame(const LogMelParams& p, const Utterance<float>& u, int frame, int lane, int*,
                                   float2 (&points)[8]) {
  constexpr int kLanes = Shape<kFftLength>::kLanes;
  const int start = frame * p.hop_length - p.frame_lead;
  const bool inside = start >= 0 && start + p.frame_length <= u.samples;

  float scale = 1.0f, sum = 0.0f, sum_before = 0.0f;
  if (p.remove_dc) {
    scale = static_cast<float>(p.frame_length);
#pragma unroll 1
    for (int n = lane; n < p.frame_length; n += 32) {
      const float2 pair = sample_pair(p, u, start, n, inside);
      sum += pair.x;
      sum_before += pair.y;
    }
    sum = warp_sum(sum);
    // Pre-emphasis of a frame is after its mean has left.
    sum_before = p.emphasize && !p.emphasize_utterance ? sum : warp_sum(sum_before);
  }

  const float rest = sum - sum_before;
  const auto point = [&](float2 pair) {
    return fmaf(scale, pair.x - pair.y, -rest) + p.keep * fmaf(scale, pair.y, -sum_before);
  };
#pragma unroll
  for (int r = 0; r < 8; ++r) {
    // Lanes that the transform does not need are beyond the frame, where all is 0.
    const int n = lane < kLanes ? 2 * (kLanes * r + lane) : kFftLength;
    points[r] = make_float2(0.0f, 0.0f);
    if (n < p.frame_length) {
      const float2 window = *reinterpret_cast<const float2*>(p.window + n);
      points[r] = make_float2(point(sample_pair(p, u, start, n, inside)) * window.x,
                              point(sample_pair(p, u, start, n + 1, inside)) * window.y);
    }
  }
}

}  // namespace edgepin
