// What is done over a whole utterance: its dynamic range, its means and deviations; and a look at float samples.
#pragma once

#include "kernel.h"
#include "simd.h"

namespace edgepin::EDGEPIN_ISA {

// The sum of f(frame) over all frames, for a vector of neighboring mels. A few in float, then on in double: the error
// does not grow with the utterance, nor does the time double.
template <class F>
EDGEPIN_INLINE Doubles sum_frames(std::size_t frames, F&& f) {
  Doubles total{};
  for (std::size_t first = 0; first < frames; first += 8) {
    const std::size_t stop = first + 8 < frames ? first + 8 : frames;
    Floats sum{};
    for (std::size_t i = first; i < stop; ++i) sum += f(i);
    total += to_doubles(sum);
  }
  return total;
}

// The columns from `mel` on, `count` <= kLanes of them, less their mean and by their deviation.
EDGEPIN_INLINE void normalize_columns(const KernelPlan& plan, float* values, std::size_t frames, std::size_t mel,
                                      std::size_t count) {
  const std::size_t width = plan.num_mels;
  const auto get = [&](std::size_t i) __attribute__((always_inline)) {
    if (count == kLanes) return load<Floats>(values + i * width + mel);
    Floats value{};
    std::memcpy(&value, values + i * width + mel, 4 * count);
    return value;
  };
  const auto put = [&](std::size_t i, Floats value) __attribute__((always_inline)) {
    std::memcpy(values + i * width + mel, &value, 4 * count);
  };
  // Above the first frame's value: a mel that never changes becomes 0 exactly.
  const Floats first = get(0);
  const auto above = [&](std::size_t i) __attribute__((always_inline)) { return get(i) - first; };
  const Floats mean = to_floats(sum_frames(frames, above) / static_cast<double>(frames));
  if (plan.normalize == Normalize::mean) {
    for (std::size_t i = 0; i < frames; ++i) put(i, above(i) - mean);
    return;
  }
  const Doubles squares = sum_frames(frames, [&](std::size_t i) __attribute__((always_inline)) {
    const Floats centered = above(i) - mean;
    return centered * centered;
  });
  const Doubles variance = squares / static_cast<double>(frames > 1 ? frames - 1 : 1);
  Doubles factor;
  for (int lane = 0; lane < kLanes; ++lane) factor[lane] = 1.0 / (__builtin_sqrt(variance[lane]) + plan.std_guard);
  const Floats scale = to_floats(factor);
  for (std::size_t i = 0; i < frames; ++i) put(i, (above(i) - mean) * scale);
}

inline void finish(const KernelPlan& plan, float* values, std::size_t frames) {
  const std::size_t count = frames * plan.num_mels;
  if (plan.dynamic_range < __builtin_inff()) {
    float largest = values[0];
    Floats largests = broadcast(largest);
    std::size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      const Floats value = load<Floats>(values + i);
      largests = value > largests ? value : largests;
    }
    for (; i < count; ++i) largest = values[i] > largest ? values[i] : largest;
    for (int lane = 0; lane < kLanes; ++lane) largest = largests[lane] > largest ? largests[lane] : largest;
    const float least = largest - plan.dynamic_range;
    for (i = 0; i < count; ++i) values[i] = values[i] > least ? values[i] : least;
  }
  if (plan.output_offset != 0.0f || plan.output_scale != 1.0f)
    for (std::size_t i = 0; i < count; ++i) values[i] = (values[i] + plan.output_offset) * plan.output_scale;
  if (plan.normalize == Normalize::none) return;
  std::size_t mel = 0;
  for (; mel + kLanes <= plan.num_mels; mel += kLanes) normalize_columns(plan, values, frames, mel, kLanes);
  if (mel < plan.num_mels) normalize_columns(plan, values, frames, mel, plan.num_mels - mel);
}

// The largest |sample|; infinity if one is not finite. Without their sign, floats are in the order of their bits, and
// NaN comes after infinity.
inline float find_largest(const float* samples, std::size_t count) {
  Ints largest{}, other{};
  std::size_t i = 0;
  const auto grow = [](Ints& most, Ints size) __attribute__((always_inline)) { most = size > most ? size : most; };
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    grow(largest, load<Ints>(samples + i) & 0x7fffffff);
    grow(other, load<Ints>(samples + i + kLanes) & 0x7fffffff);
  }
  grow(largest, other);
  std::int32_t result = 0;
  for (int lane = 0; lane < kLanes; ++lane) result = largest[lane] > result ? largest[lane] : result;
  for (; i < count; ++i) {
    std::int32_t size;
    std::memcpy(&size, samples + i, sizeof size);
    size &= 0x7fffffff;
    result = size > result ? size : result;
  }
  constexpr std::int32_t infinity = 0x7f800000;
  result = result < infinity ? result : infinity;
  float size;
  std::memcpy(&size, &result, sizeof size);
  return size;
}

}  // namespace edgepin::EDGEPIN_ISA
