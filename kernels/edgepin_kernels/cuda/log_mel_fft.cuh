// The power spectrum of one real frame by one warp: 512 points as 256 = 8 x 8 x 4 complex ones, 400 as
// 200 = 8 x 5 x 5, in registers, with two exchanges through shared memory.
//
// Complex point n = x[2n] + i x[2n+1] has n = kLanes r + lane in the first stage (r in registers, radix 8), its lane
// number is kLast m1 + m2 in the second (radix kMiddle over m1) and m2 runs in the last (radix kLast). Bin
// k = k1 + 8 (j1 + kMiddle j2), where k1, j1 and j2 are the outputs of the three stages. For the last one a lane takes
// the groups g = k1 + 8 j1 and kGroups - g, so that it holds Z[k] and Z[points - k] together, which is all that the
// real transform needs of each other.
#pragma once

#include "log_mel_device.cuh"

namespace edgepin {

template <int kFftLength>
struct Transform;

template <>
struct Transform<512> {
  static constexpr int kLanes = 32, kMiddle = 8, kLast = 4;
};

template <>
struct Transform<400> {
  static constexpr int kLanes = 25, kMiddle = 5, kLast = 5;
};

template <int kFftLength>
struct Shape : Transform<kFftLength> {
  using Base = Transform<kFftLength>;
  static constexpr int kPoints = kFftLength / 2;
  static constexpr int kBins = kPoints + 1;
  static constexpr int kGroups = 8 * Base::kMiddle;
  // A lane splits kLast pairs of bins. Those of lane 0 lie within its groups, the first ones in group 0.
  static constexpr int kPairsInFirst = (Base::kLast + 1) / 2;
  // The second stage has 8 kLast transforms: one for each of 32 lanes, or two for each of 20.
  static constexpr int kMiddleLanes = Base::kLast == 4 ? 32 : 20;
  static constexpr int kMiddlePerLane = 8 * Base::kLast / kMiddleLanes;
  static constexpr int kLastLanes = kGroups / 2;
  // Rows of complex points, 4 modulo 16, so that a half-warp of 4 x 4 lands on 16 different pairs of banks.
  static constexpr int kFirstPitch = 36;
  static constexpr int kSecondPitch = kGroups == 64 ? 68 : 52;
  static constexpr int kExchange = 8 * kFirstPitch;
  static_assert(Base::kLast * kSecondPitch <= kExchange && kBins <= 2 * kExchange, "the exchange holds every stage");
  static_assert(8 * Base::kLanes == kPoints && Base::kMiddle * Base::kLast == Base::kLanes, "the radices make the points");
};

// ---- twiddles, as constants of the program ----

constexpr double kPi = 3.14159265358979323846;

// sin and cos of 2 pi numerator / denominator, for 0 <= numerator / denominator < 1.
constexpr double turn_sine(int numerator, int denominator, bool cosine) {
  // Folded into an eighth of a turn, where a short series is exact to the last bit of a double.
  int eighths = 8 * numerator / denominator;
  double angle = 2.0 * kPi * (numerator - denominator * (eighths / 8.0)) / denominator;
  bool odd = eighths % 2 != 0;
  if (odd) angle = kPi / 4 - angle;
  double square = angle * angle, sine = 0.0, cosine_value = 0.0, term = 1.0;
  for (int power = 0; power < 20; power += 2) {
    cosine_value += term;
    sine += term * angle / (power + 1);
    term *= -square / ((power + 1) * (power + 2));
  }
  // In octants 1, 2, 5, 6 sine and cosine have changed places.
  bool swapped = eighths % 4 == 1 || eighths % 4 == 2;
  double c = swapped ? sine : cosine_value, s = swapped ? cosine_value : sine;
  if (eighths >= 2 && eighths < 6) c = -c;
  if (eighths >= 4) s = -s;
  return cosine ? c : s;
}

struct alignas(8) Twiddle {
  float re, im;
};

// exp(-2 pi i numerator / denominator)
constexpr Twiddle twiddle(int numerator, int denominator) {
  return {static_cast<float>(turn_sine(numerator % denominator, denominator, true)),
          static_cast<float>(-turn_sine(numerator % denominator, denominator, false))};
}

// The lower bin of a lane's pair.
template <typename S>
EDGEPIN_HOST_DEVICE constexpr int pair_bin(int pair, int lane) {
  if (lane != 0) return lane + S::kGroups * pair;
  return pair < S::kPairsInFirst ? S::kGroups * pair : S::kGroups / 2 + S::kGroups * (pair - S::kPairsInFirst);
}

template <int kFftLength>
struct Twiddles {
  using S = Shape<kFftLength>;
  Twiddle first[7][32];                    // W_points^(lane k1), k1 = 1..7
  Twiddle middle[S::kMiddle - 1][8];       // W_lanes^(m2 j1), j1 = 1..
  Twiddle split[S::kLast][32];             // -i W_fft^k of each pair that a lane splits

  constexpr Twiddles() : first(), middle(), split() {
    for (int k1 = 1; k1 < 8; ++k1)
      for (int lane = 0; lane < 32; ++lane) first[k1 - 1][lane] = twiddle(lane * k1, S::kPoints);
    for (int j1 = 1; j1 < S::kMiddle; ++j1)
      for (int m2 = 0; m2 < 8; ++m2) middle[j1 - 1][m2] = twiddle(m2 * j1, S::kLanes);
    for (int pair = 0; pair < S::kLast; ++pair)
      for (int lane = 0; lane < 32; ++lane) {
        // Times -i is a quarter turn more.
        split[pair][lane] = twiddle(pair_bin<S>(pair, lane) + kFftLength / 4, kFftLength);
      }
  }
};

template <int kFftLength>
EDGEPIN_TABLE Twiddles<kFftLength> kTwiddles{};

// ---- short transforms, in place, outputs in natural order ----

EDGEPIN_DEVICE float2 operator+(float2 a, float2 b) { return make_float2(a.x + b.x, a.y + b.y); }
EDGEPIN_DEVICE float2 operator-(float2 a, float2 b) { return make_float2(a.x - b.x, a.y - b.y); }
EDGEPIN_DEVICE float2 operator*(float a, float2 b) { return make_float2(a * b.x, a * b.y); }
EDGEPIN_DEVICE float2 times_minus_i(float2 a) { return make_float2(a.y, -a.x); }

EDGEPIN_DEVICE float2 operator*(float2 a, Twiddle w) {
  return make_float2(a.x * w.re - a.y * w.im, a.x * w.im + a.y * w.re);
}

EDGEPIN_DEVICE void transform(float2 (&a)[4]) {
  float2 even = a[0] + a[2], even_difference = a[0] - a[2];
  float2 odd = a[1] + a[3], odd_difference = times_minus_i(a[1] - a[3]);
  a[0] = even + odd;
  a[1] = even_difference + odd_difference;
  a[2] = even - odd;
  a[3] = even_difference - odd_difference;
}

EDGEPIN_DEVICE void transform(float2 (&a)[5]) {
  // cos and sin of 1/5 and 2/5 of a turn.
  constexpr float kCosine1 = 0.309016994374947424f, kCosine2 = -0.809016994374947424f;
  constexpr float kSine1 = 0.951056516295153572f, kSine2 = 0.587785252292473129f;
  float2 sum1 = a[1] + a[4], sum2 = a[2] + a[3];
  float2 difference1 = times_minus_i(a[1] - a[4]), difference2 = times_minus_i(a[2] - a[3]);
  float2 real1 = a[0] + kCosine1 * sum1 + kCosine2 * sum2, real2 = a[0] + kCosine2 * sum1 + kCosine1 * sum2;
  float2 turned1 = kSine1 * difference1 + kSine2 * difference2, turned2 = kSine2 * difference1 - kSine1 * difference2;
  a[0] = a[0] + sum1 + sum2;
  a[1] = real1 + turned1;
  a[2] = real2 + turned2;
  a[3] = real2 - turned2;
  a[4] = real1 - turned1;
}

EDGEPIN_DEVICE void transform(float2 (&a)[8]) {
  constexpr float kHalfRoot = 0.707106781186547524f;
  float2 even[4] = {a[0] + a[4], a[1] + a[5], a[2] + a[6], a[3] + a[7]};
  float2 odd1 = a[1] - a[5], odd3 = a[3] - a[7];
  float2 odd[4] = {
      a[0] - a[4],
      kHalfRoot * make_float2(odd1.x + odd1.y, odd1.y - odd1.x),
      times_minus_i(a[2] - a[6]),
      kHalfRoot * make_float2(odd3.y - odd3.x, -odd3.x - odd3.y),
  };
  transform(even);
  transform(odd);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    a[2 * k] = even[k];
    a[2 * k + 1] = odd[k];
  }
}

// ---- the transform of a frame ----

// What a warp exchanges through: samples, points, and where the powers of the frame's bins end.
template <int kFftLength>
union Exchange {
  int samples[kFftLength];
  float2 points[Shape<kFftLength>::kExchange];
  float powers[2 * Shape<kFftLength>::kExchange];
};

// `points` are those of this lane in the order of the first stage, already windowed by half the window, and are
// destroyed. Afterwards `exchange.powers[k]` is |X[k]|^2 for 0 <= k <= kFftLength / 2, visible to the warp.
template <int kFftLength>
EDGEPIN_DEVICE void power_spectrum(float2 (&points)[8], Exchange<kFftLength>& exchange, int lane) {
  using S = Shape<kFftLength>;
  const Twiddles<kFftLength>& twiddles = kTwiddles<kFftLength>;
  float2* shared = exchange.points;

  // 400 points do not need all lanes. The others repeat the work of one that is needed and write nothing: a warp that
  // stays together keeps its registers over the barriers.
  transform(points);
  const bool in_first = lane < S::kLanes;
  if (in_first) shared[lane] = points[0];
#pragma unroll
  for (int k1 = 1; k1 < 8; ++k1) {
    const float2 turned = points[k1] * twiddles.first[k1 - 1][lane];
    if (in_first) shared[k1 * S::kFirstPitch + lane] = turned;
  }
  sync_warp<Barrier::kFirstStageWritten>();

  float2 middle[S::kMiddlePerLane][S::kMiddle];
  const bool in_middle = lane < S::kMiddleLanes;
  const int middle_lane = in_middle ? lane : 0;
  const int k1_of_lane = (middle_lane & 3) + (S::kMiddlePerLane == 1 ? 4 * (middle_lane >> 4) : 0);
  const int m2 = S::kMiddlePerLane == 1 ? (middle_lane >> 2) & 3 : middle_lane >> 2;
#pragma unroll
  for (int part = 0; part < S::kMiddlePerLane; ++part) {
#pragma unroll
    for (int m1 = 0; m1 < S::kMiddle; ++m1)
      middle[part][m1] = shared[(k1_of_lane + 4 * part) * S::kFirstPitch + S::kLast * m1 + m2];
    transform(middle[part]);
  }
  sync_warp<Barrier::kFirstStageRead>();
#pragma unroll
  for (int j1 = 0; j1 < S::kMiddle; ++j1)
#pragma unroll
    for (int part = 0; part < S::kMiddlePerLane; ++part) {
      const float2 turned = j1 == 0 ? middle[part][0] : middle[part][j1] * twiddles.middle[j1 - (j1 > 0)][m2];
      if (in_middle) shared[m2 * S::kSecondPitch + k1_of_lane + 4 * part + 8 * j1] = turned;
    }
  sync_warp<Barrier::kSecondStageWritten>();

  float2 low[S::kLast], high[S::kLast];
  const bool in_last = lane < S::kLastLanes;
  const int last_lane = in_last ? lane : 1;
  const int partner = last_lane == 0 ? S::kGroups / 2 : S::kGroups - last_lane;
#pragma unroll
  for (int row = 0; row < S::kLast; ++row) {
    low[row] = shared[row * S::kSecondPitch + last_lane];
    high[row] = shared[row * S::kSecondPitch + partner];
  }
  transform(low);
  transform(high);
  sync_warp<Barrier::kSecondStageRead>();
  float* powers = exchange.powers;
#pragma unroll
  for (int pair = 0; pair < S::kLast; ++pair) {
    // Those of other lanes: low[j] = Z[lane + kGroups j] with high[kLast - 1 - j] = Z[points - lane - kGroups j].
    const int in_second = pair - S::kPairsInFirst;
    const float2 own = in_second < 0 ? low[pair] : high[in_second < 0 ? 0 : in_second];
    const float2 its_mirror =
        in_second < 0 ? low[(S::kLast - pair) % S::kLast] : high[S::kLast - 1 - (in_second < 0 ? 0 : in_second)];
    const float2 z = last_lane == 0 ? own : low[pair];
    const float2 mirrored = last_lane == 0 ? its_mirror : high[S::kLast - 1 - pair];
    const int bin = last_lane == 0 ? pair_bin<S>(pair, 0) : last_lane + S::kGroups * pair;
    const float2 even = make_float2(z.x + mirrored.x, z.y - mirrored.y);
    const float2 odd = make_float2(z.x - mirrored.x, z.y + mirrored.y) * twiddles.split[pair][last_lane];
    const float2 lower = even + odd, upper = even - odd;
    if (in_last) {
      powers[bin] = lower.x * lower.x + lower.y * lower.y;
      powers[S::kPoints - bin] = upper.x * upper.x + upper.y * upper.y;
    }
  }
  // The bin that is its own mirror.
  const float2 z = S::kLast % 2 == 0 ? low[S::kLast / 2] : high[S::kLast / 2];
  if (lane == 0) powers[S::kPoints / 2] = 4.0f * (z.x * z.x + z.y * z.y);
  sync_warp<Barrier::kPowerWritten>();
}

}  // namespace edgepin
