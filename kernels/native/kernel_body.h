// A block of up to kLanes frames, from samples to log-mel, without leaving the first level of cache. Included once for
// each instruction set.
#pragma once

#include "fft.h"
#include "kernel.h"
#include "utterance.h"

namespace edgepin::EDGEPIN_ISA {

// All ones for the first kLanes * 4 bytes, then zeros: loaded at an offset it is a mask of the first so many bytes.
struct Mask {
  std::int8_t bytes[8 * kLanes] = {};
  constexpr Mask() {
    for (int i = 0; i < 4 * kLanes; ++i) bytes[i] = -1;
  }
};
alignas(64) constexpr Mask kMask;

EDGEPIN_INLINE Ints first_bytes(std::size_t count) { return load<Ints>(kMask.bytes + 4 * kLanes - count); }

// Frame i of the block; lanes without a frame of their own repeat the last.
template <class Sample>
struct Frames {
  const Sample* row[kLanes];

  EDGEPIN_INLINE Frames(const Sample* samples, std::size_t hop, std::size_t count) {
    for (std::size_t i = 0; i < kLanes; ++i) row[i] = samples + (i < count ? i : count - 1) * hop;
  }
};

// Vectors in memory, for the rare loop that picks one by a number: an index would drive them all out of registers.
struct Spilled {
  float values[kLanes * kLanes];

  EDGEPIN_INLINE explicit Spilled(const Floats (&rows)[kLanes]) {
    for (int i = 0; i < kLanes; ++i) store(values + i * kLanes, rows[i]);
  }
  EDGEPIN_INLINE Floats operator[](std::size_t i) const { return load<Floats>(values + i * kLanes); }
};

// From here on, lane i of every vector belongs to frame i.

EDGEPIN_INLINE Ints sums(const Frames<std::int16_t>& frames, std::size_t length) {
  Floats rows[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    Ints even{}, odd{};
    const std::int16_t* at = frames.row[i];
    std::size_t left = length;
    for (; left >= 4 * kLanes; left -= 4 * kLanes, at += 4 * kLanes) {
      even += add_pairs(load<Ints>(at));
      odd += add_pairs(load<Ints>(at + 2 * kLanes));
    }
    for (; left > 0; left -= left < 2 * kLanes ? left : 2 * kLanes, at += 2 * kLanes)
      even += add_pairs(load<Ints>(at) & first_bytes(left < 2 * kLanes ? 2 * left : 4 * kLanes));
    rows[i] = from_bits(even + odd);
  }
  transpose(rows);
  Ints sum{};
  for (int i = 0; i < kLanes; ++i) sum += bits(rows[i]);
  return sum;
}

// Sums of the samples less one of their own size each, so that little is lost to rounding.
EDGEPIN_INLINE Floats sums_above(Floats pivot, const Frames<float>& frames, std::size_t length) {
  Floats rows[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    Floats even{}, odd{};
    const float* at = frames.row[i];
    std::size_t left = length;
    for (; left >= 2 * kLanes; left -= 2 * kLanes, at += 2 * kLanes) {
      even += load<Floats>(at) - pivot[i];
      odd += load<Floats>(at + kLanes) - pivot[i];
    }
    for (; left > 0; left -= left < kLanes ? left : kLanes, at += kLanes)
      even += from_bits(bits(load<Floats>(at) - pivot[i]) & first_bytes(left < kLanes ? 4 * left : 4 * kLanes));
    rows[i] = even + odd;
  }
  transpose(rows);
  Floats sum{};
  for (int i = 0; i < kLanes; ++i) sum += rows[i];
  return sum;
}

template <class Sample>
EDGEPIN_INLINE Floats samples_before(const Frames<Sample>& frames) {
  Floats before{};
  for (int i = 0; i < kLanes; ++i) before[i] = static_cast<float>(frames.row[i][-1]);
  return before;
}

// A frame's samples in order, into the points of the transform: pre-emphasized, windowed, two a point.
struct Emphasis {
  float factor;
  Floats previous;

  EDGEPIN_INLINE void put(float* at, Floats even, Floats odd, const float* window) {
    store_complex(at, {(even - factor * previous) * window[0], (odd - factor * even) * window[1]});
    previous = odd;
  }
};

// Whether the first pass knows which points are zero, so that they need not be written.
EDGEPIN_INLINE bool skips_zeros(const KernelPlan& plan) {
  return plan.stages[0].stop_pass > 0 && plan.passes[0].radix == 8;
}

EDGEPIN_INLINE void clear_points(const KernelPlan& plan, float* work) {
  if (skips_zeros(plan)) return;
  for (std::size_t p = plan.pairs; p < plan.points; ++p) store_complex(work + plan.places[p], Complex{});
}

EDGEPIN_INLINE void load_points(const KernelPlan& plan, const Frames<std::int16_t>& frames, float* work) {
  const Ints offset = plan.remove_dc ? sums(frames, plan.frame_length) : Ints{};
  Emphasis emphasis{plan.preemphasis, Floats{}};
  if (plan.emphasis_enters) emphasis.previous = samples_before(frames) * static_cast<float>(plan.int16_factor);
  for (std::size_t first = 0; first < plan.pairs; first += kLanes) {
    Floats rows[kLanes];
    for (int i = 0; i < kLanes; ++i) rows[i] = load<Floats>(frames.row[i] + 2 * first);
    transpose(rows);
    const std::size_t count = plan.pairs - first < kLanes ? plan.pairs - first : kLanes;
    const auto put = [&](std::size_t i, Floats samples) __attribute__((always_inline)) {
      const Scaled pair = scale_pairs(bits(samples), plan.int16_factor, offset);
      if (i == 0 && first == 0 && !plan.emphasis_enters) emphasis.previous = pair.low;
      emphasis.put(work + plan.places[first + i], pair.low, pair.high, plan.int16_window + 2 * (first + i));
    };
    if (count == kLanes) {
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) put(i, rows[i]);
    } else {
      const Spilled spilled(rows);
      for (std::size_t i = 0; i < count; ++i) put(i, spilled[i]);
    }
  }
  clear_points(plan, work);
}

EDGEPIN_INLINE void load_points(const KernelPlan& plan, const Frames<float>& frames, float* work) {
  // The mean in two parts. The first is near it, and exact if the frame is constant: constants leave no trace. The rest is what is
  // left of the mean once the first is gone.
  Floats pivot{}, mean{};
  if (plan.remove_dc) {
    const float length = static_cast<float>(plan.frame_length);
    for (int i = 0; i < kLanes; ++i) pivot[i] = *frames.row[i];
    pivot += sums_above(pivot, frames, plan.frame_length) / length;
    mean = sums_above(pivot, frames, plan.frame_length) / length;
  }
  Emphasis emphasis{plan.preemphasis, Floats{}};
  if (plan.emphasis_enters) emphasis.previous = samples_before(frames);
  for (std::size_t first = 0; first < 2 * plan.pairs; first += kLanes) {
    Floats rows[kLanes];
    for (int i = 0; i < kLanes; ++i) rows[i] = load<Floats>(frames.row[i] + first);
    transpose(rows);
    const std::size_t count = 2 * plan.pairs - first < kLanes ? 2 * plan.pairs - first : kLanes;
    const auto put = [&](std::size_t i, Floats first_sample, Floats second) __attribute__((always_inline)) {
      const Floats even = (first_sample - pivot) - mean, odd = (second - pivot) - mean;
      if (i == 0 && first == 0 && !plan.emphasis_enters) emphasis.previous = even;
      emphasis.put(work + plan.places[(first + i) / 2], even, odd, plan.float_window + first + i);
    };
    if (count == kLanes) {
#pragma GCC unroll 8
      for (int i = 0; i < kLanes; i += 2) put(i, rows[i], rows[i + 1]);
    } else {
      const Spilled spilled(rows);
      for (std::size_t i = 0; i < count; i += 2) put(i, spilled[i], spilled[i + 1]);
    }
  }
  clear_points(plan, work);
}

// The first pass has a frame's points only; what follows them is zero.
inline void run_first_pass(const KernelPlan& plan, const Pass& p, float* data) {
  const std::size_t filled = (plan.pairs + p.m - 1) / p.m;  // of the first butterflies; one less of those after `split`
  const std::size_t split = plan.pairs - (filled - 1) * p.m;
  first_pass_of_8(data, filled, 0, split, p.points, p.twiddles);
  first_pass_of_8(data, filled - 1, split, p.m, p.points, p.twiddles);
}

inline void run_pass(const KernelPlan& plan, const Pass& p, float* work) {
  float* const data = work + p.at;
  if (p.first && skips_zeros(plan)) return run_first_pass(plan, p, data);
  switch (p.radix) {
    case 2: return pass<2>(data, p.groups, p.stride, p.m, p.points, p.twiddles);
    case 3: return pass<3>(data, p.groups, p.stride, p.m, p.points, p.twiddles);
    case 4: return pass<4>(data, p.groups, p.stride, p.m, p.points, p.twiddles);
    case 5: return pass<5>(data, p.groups, p.stride, p.m, p.points, p.twiddles);
    case 8: return pass<8>(data, p.groups, p.stride, p.m, p.points, p.twiddles);
    default:
      general_pass(data, p.radix, p.groups, p.stride, p.m, p.points, p.twiddles, p.roots, work + plan.work_points);
  }
}

template <int R>
inline void last_pass(const MirrorBlocks* begin, const MirrorBlocks* end, float* work) {
  for (const MirrorBlocks* blocks = begin; blocks != end; ++blocks) {
    if (blocks->at == blocks->mirror)
      last_pass_alone<R>(work + blocks->at, blocks->turns, blocks->first);
    else
      last_pass_pair<R>(work + blocks->at, work + blocks->mirror, blocks->turns);
  }
}

EDGEPIN_INLINE void transform(const KernelPlan& plan, float* work) {
  for (const Stage* stage = plan.stages; stage != plan.stages + plan.num_stages; ++stage) {
    for (std::size_t i = stage->first_pass; i < stage->stop_pass; ++i) run_pass(plan, plan.passes[i], work);
    const MirrorBlocks* const begin = plan.mirrors + stage->first_mirrors;
    const MirrorBlocks* const end = plan.mirrors + stage->stop_mirrors;
    switch (plan.last_radix) {
      case 2: last_pass<2>(begin, end, work); break;
      case 3: last_pass<3>(begin, end, work); break;
      case 4: last_pass<4>(begin, end, work); break;
      case 5: last_pass<5>(begin, end, work); break;
      default: last_pass<1>(begin, end, work);
    }
  }
}

EDGEPIN_INLINE void sum_mels(const KernelPlan& plan, const float* work, float* mels) {
  const std::size_t* place = plan.mel_places;
  const float* weight = plan.mel_weights;
  for (std::size_t m = 0; m < plan.num_mels; ++m) {
    Floats sum{};
    for (std::size_t i = 0; i < plan.mel_counts[m]; ++i) sum += *weight++ * load<Floats>(work + *place++);
    store(mels + m * kLanes, sum);
  }
}

// The natural logarithm of positive normal numbers, to 1.5 units in the last place: exponent and mantissa in [sqrt 1/2, sqrt 2)
// apart, log(1 + f) = f - f^2 / 2 + f^3 P(f) with P fitted for the least largest relative error (3e-8 before rounding).
EDGEPIN_INLINE Floats natural_log(Floats x) {
  constexpr std::int32_t sqrt_half = 0x3f3504f3;
  const Ints exponent = (bits(x) - sqrt_half) >> 23;
  const Floats e = to_floats(exponent), f = from_bits(bits(x) - (exponent << 23)) - 1.0f, f2 = f * f;
  const Floats p01 = f * -2.500133812e-01f + 3.333390951e-01f, p23 = f * -1.657758355e-01f + 1.996306330e-01f;
  const Floats p456 = f2 * 8.700419217e-02f + (f * -1.426748931e-01f + 1.491477340e-01f);
  const Floats p = p456 * (f2 * f2) + (p23 * f2 + p01);
  // ln 2 in two parts, the first with so few bits that its multiples are exact.
  const Floats small = p * (f * f2) + e * 9.05800061445916e-06f - 0.5f * f2;
  return (small + f) + e * 0.693138122558593750f;
}

EDGEPIN_INLINE void logarithms(const KernelPlan& plan, float* mels) {
  if (plan.log == Log::none) return;
  const float unit = plan.log == Log::ln      ? 1.0f
                     : plan.log == Log::log10 ? 0.434294481903251828f
                                              : 4.34294481903251828f;
  const Floats silence = broadcast(plan.log_of_floor), floor = broadcast(plan.floor);
  for (std::size_t m = 0; m < plan.num_mels; ++m) {
    const Floats energy = load<Floats>(mels + m * kLanes);
    // Silence is the floor exactly, which a rounded logarithm might not be.
    if (plan.add_floor)
      store(mels + m * kLanes, energy == 0.0f ? silence : natural_log(energy + floor) * unit);
    else
      store(mels + m * kLanes, energy > floor ? natural_log(energy > floor ? energy : floor) * unit : silence);
  }
}

// (mels, lanes) -> (frames, mels).
EDGEPIN_INLINE void write_rows(const KernelPlan& plan, const float* mels, std::size_t frames, float* out) {
  for (std::size_t first = 0; first < plan.num_mels; first += kLanes) {
    Floats rows[kLanes];
    for (int i = 0; i < kLanes; ++i) rows[i] = load<Floats>(mels + (first + i) * kLanes);
    transpose(rows);
    if (plan.num_mels - first >= kLanes) {
      if (frames == kLanes) {
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) store(out + i * plan.num_mels + first, rows[i]);
      } else {
        for (std::size_t i = 0; i < frames; ++i) store(out + i * plan.num_mels + first, rows[i]);
      }
    } else {
      for (std::size_t i = 0; i < frames; ++i)
        std::memcpy(out + i * plan.num_mels + first, &rows[i], 4 * (plan.num_mels - first));
    }
  }
}

// In a batch, samples and results come and go through slower levels of cache. All lines of a block that the block before did
// not have are asked for at once, rather than one after the other as the rows get to them; those to be written have until the
// end of the block. What lies beyond the end is asked for too, and nothing comes of it.
template <class Sample>
EDGEPIN_INLINE void prefetch(const KernelPlan& plan, const Sample* samples, std::size_t frames, const float* out) {
  constexpr std::uintptr_t line = 64, most = 32768;
  const std::uintptr_t results = reinterpret_cast<std::uintptr_t>(out);
  const std::uintptr_t result_bytes = frames * plan.num_mels * sizeof(float);
  for (std::uintptr_t i = 0; i < result_bytes && i < most; i += line)
    __builtin_prefetch(reinterpret_cast<const void*>(results + i), 1, 2);
  const std::uintptr_t added = reinterpret_cast<std::uintptr_t>(samples) + plan.frame_length * sizeof(Sample);
  const std::uintptr_t added_bytes = kLanes * plan.hop_length * sizeof(Sample);
  for (std::uintptr_t i = 0; i < added_bytes && i < most; i += line)
    __builtin_prefetch(reinterpret_cast<const void*>(added + i), 0, 2);
}

template <class Sample>
void run_block(const KernelPlan& plan, const Sample* samples, std::size_t frames, float* work, float* out) {
  float* mels = work + plan.work_points;
  prefetch(plan, samples, frames, out);
  load_points(plan, Frames<Sample>(samples, plan.hop_length, frames), work);
  transform(plan, work);
  sum_mels(plan, work, mels);
  logarithms(plan, mels);
  write_rows(plan, mels, frames, out);
}

constexpr Kernel make_kernel(const char* name) {
  return {name, kLanes, run_block<std::int16_t>, run_block<float>, finish, find_largest};
}

}  // namespace edgepin::EDGEPIN_ISA
