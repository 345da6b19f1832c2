// The transform: in-place, decimation in frequency, mixed radix, of kLanes frames at once. Nothing is ever shuffled
// between lanes, so digit-reversed order costs nothing: the last pass knows which bins it makes.
#pragma once

#include "simd.h"

namespace edgepin::EDGEPIN_ISA {

struct Complex {
  Floats re, im;
};

EDGEPIN_INLINE Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
EDGEPIN_INLINE Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
EDGEPIN_INLINE Complex operator*(Complex a, float b) { return {a.re * b, a.im * b}; }
// a - i b and a + i b. A quarter turn on its own would be a negation, for which compilers subtract twice, both ways round.
EDGEPIN_INLINE Complex plus_turned(Complex a, Complex b) { return {a.re + b.im, a.im - b.re}; }
EDGEPIN_INLINE Complex minus_turned(Complex a, Complex b) { return {a.re - b.im, a.im + b.re}; }
EDGEPIN_INLINE Complex times(Complex a, const float* w) {
  return {a.re * w[0] - a.im * w[1], a.re * w[1] + a.im * w[0]};
}

EDGEPIN_INLINE Complex load_complex(const float* at) {
  return {load<Floats>(at), load<Floats>(at + kLanes)};
}
EDGEPIN_INLINE void store_complex(float* at, Complex value) {
  store(at, value.re);
  store(at + kLanes, value.im);
}

// x <- the R-point transform of x, in natural order.
template <int R>
EDGEPIN_INLINE void butterfly(Complex (&x)[R]) {
  if constexpr (R == 2) {
    const Complex a = x[0];
    x[0] = a + x[1];
    x[1] = a - x[1];
  } else if constexpr (R == 3) {
    const Complex sum = x[1] + x[2], difference = (x[1] - x[2]) * 0.866025403784438647f;
    const Complex middle = {x[0].re - 0.5f * sum.re, x[0].im - 0.5f * sum.im};
    x[0] = x[0] + sum;
    x[1] = plus_turned(middle, difference);
    x[2] = minus_turned(middle, difference);
  } else if constexpr (R == 4) {
    const Complex a = x[0] + x[2], b = x[0] - x[2], c = x[1] + x[3], d = x[1] - x[3];
    x[0] = a + c;
    x[1] = plus_turned(b, d);
    x[2] = a - c;
    x[3] = minus_turned(b, d);
  } else if constexpr (R == 5) {
    constexpr float c1 = 0.309016994374947424f, c2 = -0.809016994374947424f;
    constexpr float s1 = 0.951056516295153572f, s2 = 0.587785252292473129f;
    const Complex a = x[1] + x[4], b = x[1] - x[4], c = x[2] + x[3], d = x[2] - x[3];
    const Complex p = {x[0].re + c1 * a.re + c2 * c.re, x[0].im + c1 * a.im + c2 * c.im};
    const Complex q = {x[0].re + c2 * a.re + c1 * c.re, x[0].im + c2 * a.im + c1 * c.im};
    const Complex u = {s1 * b.re + s2 * d.re, s1 * b.im + s2 * d.im};
    const Complex v = {s2 * b.re - s1 * d.re, s2 * b.im - s1 * d.im};
    x[0] = x[0] + a + c;
    x[1] = plus_turned(p, u);
    x[2] = plus_turned(q, v);
    x[3] = minus_turned(q, v);
    x[4] = minus_turned(p, u);
  } else if constexpr (R == 8) {
    // Two transforms of 4 points, on the sums and on the turned differences. The factor of the eighths of a turn goes into the
    // last sums, where it costs nothing: a product and a sum are one instruction.
    constexpr float half = 0.707106781186547524f;
    Complex even[4] = {x[0] + x[4], x[1] + x[5], x[2] + x[6], x[3] + x[7]};
    const Complex p = x[0] - x[4], q = x[1] - x[5], r = x[2] - x[6], s = x[3] - x[7];
    const Complex a = plus_turned(p, r), b = minus_turned(p, r);
    // q by an eighth of a turn and s by three, but for the factor: sum and difference.
    const Floats q_sum = q.re + q.im, q_rest = q.im - q.re, s_sum = s.re + s.im, s_rest = s.im - s.re;
    const Complex c = {q_sum + s_rest, q_rest - s_sum}, d = {q_sum - s_rest, q_rest + s_sum};
    butterfly<4>(even);
    x[0] = even[0];
    x[1] = {a.re + half * c.re, a.im + half * c.im};
    x[2] = even[1];
    x[3] = {b.re + half * d.im, b.im - half * d.re};
    x[4] = even[2];
    x[5] = {a.re - half * c.re, a.im - half * c.im};
    x[6] = even[3];
    x[7] = {b.re - half * d.im, b.im + half * d.re};
  } else {
    static_assert(R == 1);
  }
}

// One butterfly of a pass: points `points` floats apart from `at` on, of which those from `Filled` on are zero and may be
// anything in memory, and the twiddles after it.
template <int R, int Filled>
EDGEPIN_INLINE void pass_step(float* at, std::size_t points, const float* w) {
  Complex x[R] = {};
#pragma GCC unroll 8
  for (int q = 0; q < Filled; ++q) x[q] = load_complex(at + q * points);
  butterfly<R>(x);
  store_complex(at, x[0]);
#pragma GCC unroll 8
  for (int q = 1; q < R; ++q) store_complex(at + q * points, times(x[q], w + 2 * (q - 1)));
}

// One pass over `groups` neighboring transforms, `stride` floats apart, of R * m points each: point j + q m -> the R-point
// transform over q, then the twiddles. `points` floats lie between points q and q + 1 of a butterfly, so that a pass whose
// points would all fall into the same set of the cache can be padded. `twiddles` is (m, R - 1) complex.
template <int R>
inline void pass(float* data, std::size_t groups, std::size_t stride, std::size_t m, std::size_t points,
                 const float* twiddles) {
  for (std::size_t group = 0; group < groups; ++group, data += stride)
    for (std::size_t j = 0; j < m; ++j)
      pass_step<R, R>(data + 2 * kLanes * j, points, twiddles + 2 * (R - 1) * j);
}

// The butterflies from `first` to `stop` of a first pass of radix 8 whose later points are zero: a frame is shorter than
// the transform.
template <int Filled>
inline void part_of_first_pass(float* data, std::size_t first, std::size_t stop, std::size_t points,
                               const float* twiddles) {
  for (std::size_t j = first; j < stop; ++j)
    pass_step<8, Filled>(data + 2 * kLanes * j, points, twiddles + 2 * 7 * j);
}

inline void first_pass_of_8(float* data, std::size_t filled, std::size_t first, std::size_t stop, std::size_t points,
                            const float* twiddles) {
  switch (filled) {
    case 0: return part_of_first_pass<0>(data, first, stop, points, twiddles);
    case 1: return part_of_first_pass<1>(data, first, stop, points, twiddles);
    case 2: return part_of_first_pass<2>(data, first, stop, points, twiddles);
    case 3: return part_of_first_pass<3>(data, first, stop, points, twiddles);
    case 4: return part_of_first_pass<4>(data, first, stop, points, twiddles);
    case 5: return part_of_first_pass<5>(data, first, stop, points, twiddles);
    case 6: return part_of_first_pass<6>(data, first, stop, points, twiddles);
    case 7: return part_of_first_pass<7>(data, first, stop, points, twiddles);
    default: return part_of_first_pass<8>(data, first, stop, points, twiddles);
  }
}

// The same for any other radix, by its definition; `roots` is cos and -sin of 2 pi q / radix.
inline void general_pass(float* data, std::size_t radix, std::size_t groups, std::size_t stride, std::size_t m,
                         std::size_t points, const float* twiddles, const float* roots, float* spare) {
  for (std::size_t group = 0; group < groups; ++group, data += stride) {
    const float* w = twiddles;
    float* at = data;
    for (std::size_t j = 0; j < m; ++j, at += 2 * kLanes, w += 2 * (radix - 1)) {
      for (std::size_t k = 0; k < radix; ++k) {
        Complex sum = load_complex(at);
        for (std::size_t q = 1, turn = k; q < radix; ++q, turn = (turn + k) % radix)
          sum = sum + times(load_complex(at + q * points), roots + 2 * turn);
        store_complex(spare + 2 * kLanes * k, k ? times(sum, w + 2 * (k - 1)) : sum);
      }
      for (std::size_t k = 0; k < radix; ++k)
        store_complex(at + k * points, load_complex(spare + 2 * kLanes * k));
    }
  }
}

// The bins k and n - k of a real transform of 2n points out of the complex one of n points whose bins they are:
// a = Z[k], b = Z[n - k], w = (cos, sin)(pi k / n). Four times the power, which the window makes up for.
struct Powers {
  Floats at_k, at_mirror;
};
EDGEPIN_INLINE Powers real_powers(Complex a, Complex b, const float* w) {
  const Floats sum_re = a.re + b.re, sum_im = a.im - b.im, rest_re = a.re - b.re, rest_im = a.im + b.im;
  // Products and sums in this order fuse, so that the adders and the multipliers of the processor have equal work.
  const Floats re = (sum_re - rest_re * w[1]) + rest_im * w[0], im = (sum_im - rest_im * w[1]) - rest_re * w[0];
  const Floats mirror_re = (sum_re + rest_re * w[1]) - rest_im * w[0];
  const Floats mirror_im = (sum_im + rest_im * w[1]) + rest_re * w[0];
  return {re * re + im * im, mirror_re * mirror_re + mirror_im * mirror_im};
}

// Two blocks of the last pass whose bins are each other's mirrors. Bin k's power replaces the real part of the point
// that it came from. `w` is one complex for each q.
template <int R>
EDGEPIN_INLINE void last_pass_pair(float* at, float* mirror, const float* w) {
  Complex x[R], y[R];
#pragma GCC unroll 8
  for (int q = 0; q < R; ++q) {
    x[q] = load_complex(at + 2 * kLanes * q);
    y[q] = load_complex(mirror + 2 * kLanes * q);
  }
  butterfly<R>(x);
  butterfly<R>(y);
#pragma GCC unroll 8
  for (int q = 0; q < R; ++q) {
    const Powers powers = real_powers(x[q], y[R - 1 - q], w + 2 * q);
    store(at + 2 * kLanes * q, powers.at_k);
    store(mirror + 2 * kLanes * (R - 1 - q), powers.at_mirror);
  }
}

// A block that is its own mirror: `first` tells whether it is the one of bin 0 (q <-> R - q, and bin n, whose power
// replaces the imaginary part of bin 0) or the one in the middle (q <-> R - 1 - q).
template <int R>
EDGEPIN_INLINE void last_pass_alone(float* at, const float* w, bool first) {
  Complex x[R];
#pragma GCC unroll 8
  for (int q = 0; q < R; ++q) x[q] = load_complex(at + 2 * kLanes * q);
  butterfly<R>(x);
  if (first) {
    const Powers ends = real_powers(x[0], x[0], w);
    store(at, ends.at_k);
    store(at + kLanes, ends.at_mirror);
  }
#pragma GCC unroll 8
  for (int q = first ? 1 : 0; q < R; ++q) {
    const int partner = first ? R - q : R - 1 - q;
    if (q > partner) break;
    const Powers powers = real_powers(x[q], x[partner], w + 2 * q);
    store(at + 2 * kLanes * q, powers.at_k);
    if (q != partner) store(at + 2 * kLanes * partner, powers.at_mirror);
  }
}

}  // namespace edgepin::EDGEPIN_ISA
