// Vectors of EDGEPIN_LANES floats, one frame in each lane, on the compilers' vector extensions: the same source for
// AVX-512, AVX2, NEON and anything else. Only what the extensions lack is written per instruction set.
//
// Every name here lives in a namespace of its instruction set. The same template compiled for two of them must not be
// one symbol, or the linker may keep the AVX-512 body for a processor that has none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if !defined(EDGEPIN_ISA) || !defined(EDGEPIN_LANES)
#error "define EDGEPIN_ISA (a namespace) and EDGEPIN_LANES (4, 8 or 16) for this instruction set"
#endif

#define EDGEPIN_INLINE inline __attribute__((always_inline))

namespace edgepin::EDGEPIN_ISA {

constexpr int kLanes = EDGEPIN_LANES;

typedef float Floats __attribute__((vector_size(4 * EDGEPIN_LANES)));
typedef std::int32_t Ints __attribute__((vector_size(4 * EDGEPIN_LANES)));
typedef double Doubles __attribute__((vector_size(8 * EDGEPIN_LANES)));

template <class Vector>
EDGEPIN_INLINE Vector load(const void* from) {
  Vector value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

EDGEPIN_INLINE void store(float* to, Floats value) { std::memcpy(to, &value, sizeof value); }

EDGEPIN_INLINE Floats broadcast(float value) { return Floats{} + value; }

EDGEPIN_INLINE Floats to_floats(Ints value) { return __builtin_convertvector(value, Floats); }

EDGEPIN_INLINE Floats to_floats(Doubles value) { return __builtin_convertvector(value, Floats); }

EDGEPIN_INLINE Doubles to_doubles(Floats value) { return __builtin_convertvector(value, Doubles); }

EDGEPIN_INLINE Ints bits(Floats value) { return (Ints)value; }

EDGEPIN_INLINE Floats from_bits(Ints value) { return (Floats)value; }

// A sample is a half of a 32-bit lane: the low one is the earlier (little-endian memory).
// low * factor - offset, and the same of the high halves. Exact: |factor| < 2^15 and the result fits 32 bits.
struct Scaled {
  Floats low, high;
};
EDGEPIN_INLINE Scaled scale_pairs(Ints pairs, int factor, Ints offset) {
#if defined(__AVX512BW__)
  const __m512i value = (__m512i)pairs;
  const __m512i low = _mm512_madd_epi16(value, _mm512_set1_epi32(factor));
  const __m512i high = _mm512_madd_epi16(value, _mm512_set1_epi32(factor << 16));
  return {to_floats((Ints)low - offset), to_floats((Ints)high - offset)};
#elif defined(__AVX2__)
  const __m256i value = (__m256i)pairs;
  const __m256i low = _mm256_madd_epi16(value, _mm256_set1_epi32(factor));
  const __m256i high = _mm256_madd_epi16(value, _mm256_set1_epi32(factor << 16));
  return {to_floats((Ints)low - offset), to_floats((Ints)high - offset)};
#else
  return {to_floats(((pairs << 16) >> 16) * factor - offset), to_floats((pairs >> 16) * factor - offset)};
#endif
}

// The sum of each pair's two samples.
EDGEPIN_INLINE Ints add_pairs(Ints pairs) {
#if defined(__AVX512BW__)
  return (Ints)_mm512_madd_epi16((__m512i)pairs, _mm512_set1_epi16(1));
#elif defined(__AVX2__)
  return (Ints)_mm256_madd_epi16((__m256i)pairs, _mm256_set1_epi16(1));
#else
  return ((pairs << 16) >> 16) + (pairs >> 16);
#endif
}

// rows[i][j] <-> rows[j][i].
#if EDGEPIN_LANES == 16
EDGEPIN_INLINE void transpose(Floats (&rows)[16]) {
  __m512 a[16], b[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps((__m512)rows[i], (__m512)rows[i + 1]);
    a[i + 1] = _mm512_unpackhi_ps((__m512)rows[i], (__m512)rows[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    b[i] = (__m512)_mm512_unpacklo_pd((__m512d)a[i], (__m512d)a[i + 2]);
    b[i + 1] = (__m512)_mm512_unpackhi_pd((__m512d)a[i], (__m512d)a[i + 2]);
    b[i + 2] = (__m512)_mm512_unpacklo_pd((__m512d)a[i + 1], (__m512d)a[i + 3]);
    b[i + 3] = (__m512)_mm512_unpackhi_pd((__m512d)a[i + 1], (__m512d)a[i + 3]);
  }
  // b[4g + c] holds, in its four 128-bit parts p, the column 4p + c of rows 4g to 4g + 3.
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512 even_low = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x88), odd_low = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xdd);
    const __m512 even_high = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x88);
    const __m512 odd_high = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xdd);
    rows[c] = (Floats)_mm512_shuffle_f32x4(even_low, even_high, 0x88);
    rows[8 + c] = (Floats)_mm512_shuffle_f32x4(even_low, even_high, 0xdd);
    rows[4 + c] = (Floats)_mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
    rows[12 + c] = (Floats)_mm512_shuffle_f32x4(odd_low, odd_high, 0xdd);
  }
}
#elif EDGEPIN_LANES == 8
EDGEPIN_INLINE void transpose(Floats (&rows)[8]) {
  __m256 a[8], b[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps((__m256)rows[i], (__m256)rows[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps((__m256)rows[i], (__m256)rows[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    b[i] = (__m256)_mm256_unpacklo_pd((__m256d)a[i], (__m256d)a[i + 2]);
    b[i + 1] = (__m256)_mm256_unpackhi_pd((__m256d)a[i], (__m256d)a[i + 2]);
    b[i + 2] = (__m256)_mm256_unpacklo_pd((__m256d)a[i + 1], (__m256d)a[i + 3]);
    b[i + 3] = (__m256)_mm256_unpackhi_pd((__m256d)a[i + 1], (__m256d)a[i + 3]);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    rows[c] = (Floats)_mm256_permute2f128_ps(b[c], b[4 + c], 0x20);
    rows[4 + c] = (Floats)_mm256_permute2f128_ps(b[c], b[4 + c], 0x31);
  }
}
#elif EDGEPIN_LANES == 4
EDGEPIN_INLINE void transpose(Floats (&rows)[4]) {
  const Floats a = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5);
  const Floats b = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
  const Floats c = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
  const Floats d = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
  rows[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
  rows[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
  rows[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
  rows[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
}
#endif

}  // namespace edgepin::EDGEPIN_ISA
