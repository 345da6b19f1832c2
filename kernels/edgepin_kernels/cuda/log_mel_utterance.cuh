// What is taken over a whole utterance: its largest value, and the mean and standard deviation of each mel, by one
// block or by several that run at the same time and wait for each other.
//
// The sums are exact, and therefore the same in any order and on any grid: a logarithm lies within +-2^9, is rounded to
// a multiple of 2^-30 (finer than a float but for values next to 0) and added as a whole number, its square in 128 bits.
// Energies without a logarithm have no such bounds; their sums are in double precision, and always by one block.
#pragma once

#include "log_mel_device.cuh"

namespace edgepin {

typedef unsigned long long Word;
typedef unsigned __int128 Wide;

constexpr float kFixedPoint = 1073741824.0f;  // 2^30

EDGEPIN_DEVICE Wide wide(Word low, Word high) { return (static_cast<Wide>(high) << 64) | low; }
EDGEPIN_DEVICE double wide_to_double(Wide value) {
  return static_cast<double>(static_cast<Word>(value >> 64)) * 18446744073709551616.0 +
         static_cast<double>(static_cast<Word>(value));
}

EDGEPIN_DEVICE double bits_to_double(Word bits) { return __longlong_as_double(static_cast<long long>(bits)); }
EDGEPIN_DEVICE Word double_to_bits(double value) { return static_cast<Word>(__double_as_longlong(value)); }

// Floats in the order of unsigned numbers; 0 is below every one of them.
EDGEPIN_DEVICE uint32_t ordered_key(float value) {
  const uint32_t bits = static_cast<uint32_t>(__float_as_int(value));
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
EDGEPIN_DEVICE float from_ordered_key(uint32_t key) {
  return __int_as_float(static_cast<int>(key & 0x80000000u ? key & 0x7fffffffu : ~key));
}

EDGEPIN_DEVICE bool over_utterance(const LogMelParams& p) { return p.limit_range || p.normalize != kNormalizeNone; }
EDGEPIN_DEVICE bool sums_exactly(const LogMelParams& p) { return p.normalize != kNormalizeNone && p.log != kLogNone; }

// Which frames of its utterance a warp has, and where a frame's mels are.
EDGEPIN_DEVICE int first_frame(int warp) { return static_cast<int>(blockIdx.x) * kWarps + warp; }
EDGEPIN_DEVICE int frame_step() { return static_cast<int>(gridDim.x) * kWarps; }
EDGEPIN_DEVICE int64_t row_offset(const LogMelParams& p, int frame) {
  return (static_cast<int64_t>(blockIdx.y) * p.out_frames + frame) * p.num_mels;
}

// What a block has for its share of an utterance.
struct Team {
  int blocks;           // of this utterance
  uint32_t* header;     // the utterance's part of the workspace, for several blocks
  Word* global_sums;    // (sum_words, padded_mels) there
  Word* sums;           // shared: (kWarps, sum_words, padded_mels); each element is one thread's until they are combined
  float2* statistics;   // shared: (padded_mels,), mean and divisor
  uint32_t waits;       // barriers that the blocks have passed
};

EDGEPIN_DEVICE Team make_team(const LogMelParams& p, Word* sums) {
  Team team;
  team.blocks = gridDim.x;
  team.header = p.workspace + static_cast<int64_t>(blockIdx.y) * p.workspace_words;
  team.global_sums = reinterpret_cast<Word*>(team.header + kHeaderWords);
  team.sums = sums;
  team.statistics = reinterpret_cast<float2*>(sums + kWarps * sum_words(p.normalize) * p.padded_mels);
  team.waits = 0;
  return team;
}

EDGEPIN_DEVICE Word* own_sums(const LogMelParams& p, Word* sums, int warp, int mel) {
  return sums + warp * sum_words(p.normalize) * p.padded_mels + mel;
}

EDGEPIN_DEVICE void clear_own_sums(const LogMelParams& p, Word* sums) {
#pragma unroll 1
  for (int mel = threadIdx.x % 32; mel < p.padded_mels; mel += 32)
    for (int word = 0; word < sum_words(p.normalize); ++word)
      own_sums(p, sums, threadIdx.x / 32, mel)[word * p.padded_mels] = 0;
}

// All blocks of the utterance. They are resident at the same time, or the launch would have been refused.
EDGEPIN_DEVICE void wait_for_blocks(Team& team) {
  sync_block<Barrier::kArrived>();
  ++team.waits;
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(&team.header[0], 1u);
    const uint32_t all = team.waits * static_cast<uint32_t>(team.blocks);
    while (load_acquire(&team.header[0]) < all) {
    }
    __threadfence();
  }
  sync_block<Barrier::kReleased>();
}

// The last block to leave makes the workspace zero again, for the next launch. Every thread of the block has read
// what it needs when this is called.
EDGEPIN_DEVICE void leave_workspace(const LogMelParams& p, Team& team, int* is_last) {
  sync_block<Barrier::kWorkspaceRead>();
  if (threadIdx.x == 0) {
    __threadfence();
    *is_last = atomicAdd(&team.header[1], 1u) + 1u == static_cast<uint32_t>(team.blocks);
    __threadfence();
  }
  sync_block<Barrier::kLastKnown>();
  if (*is_last) {
    for (int word = threadIdx.x; word < p.workspace_words; word += kThreads) team.header[word] = 0u;
  }
}

// The largest value of the utterance, from the largest of each thread.
EDGEPIN_DEVICE float utterance_maximum(Team& team, float largest, float* shared) {
  largest = warp_max(largest);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = largest;
  sync_block<Barrier::kMaximaWritten>();
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) largest = fmaxf(largest, shared[warp]);
  if (team.blocks > 1) {
    if (threadIdx.x == 0) atomicMax(&team.header[2], ordered_key(largest));
    wait_for_blocks(team);
    largest = from_ordered_key(load_shared_word(&team.header[2]));
  }
  return largest;
}

// Adds a logarithm to a thread's sums of a mel.
EDGEPIN_DEVICE void add_exactly(const LogMelParams& p, Word* sums, float value) {
  const long long fixed = __float2ll_rn(value * kFixedPoint);
  sums[0] += static_cast<Word>(fixed);
  if (p.normalize == kNormalizeMeanStd) {
    const Word size = static_cast<Word>(fixed < 0 ? -fixed : fixed);
    const Wide total = wide(sums[p.padded_mels], sums[2 * p.padded_mels]) + static_cast<Wide>(size) * size;
    sums[p.padded_mels] = static_cast<Word>(total);
    sums[2 * p.padded_mels] = static_cast<Word>(total >> 64);
  }
}

EDGEPIN_DEVICE float divisor(const LogMelParams& p, double deviation) {
  return static_cast<float>(fabs(static_cast<double>(p.output_scale)) * deviation + kDeviationGuard);
}

// From the exact sums of all threads to the mean and the divisor of each mel, visible to the block.
EDGEPIN_DEVICE void exact_statistics(const LogMelParams& p, Team& team, int frames) {
  const int words = sum_words(p.normalize);
  sync_block<Barrier::kSumsWritten>();
#pragma unroll 1
  for (int mel = threadIdx.x; mel < p.num_mels; mel += kThreads) {
    Word sum = 0;
    Wide squares = 0;
    for (int warp = 0; warp < kWarps; ++warp) {
      const Word* part = team.sums + warp * words * p.padded_mels + mel;
      sum += part[0];
      if (words == 3) squares += wide(part[p.padded_mels], part[2 * p.padded_mels]);
    }
    team.sums[mel] = sum;
    if (words == 3) {
      team.sums[p.padded_mels + mel] = static_cast<Word>(squares);
      team.sums[2 * p.padded_mels + mel] = static_cast<Word>(squares >> 64);
    }
    if (team.blocks > 1) {
      // Whole numbers, so that it does not matter which block comes first.
      atomicAdd(&team.global_sums[mel], sum);
      if (words == 3) {
        const Word low = static_cast<Word>(squares);
        const Word carry = atomicAdd(&team.global_sums[p.padded_mels + mel], low) + low < low ? 1 : 0;
        atomicAdd(&team.global_sums[2 * p.padded_mels + mel], static_cast<Word>(squares >> 64) + carry);
      }
    }
  }
  const Word* totals = team.sums;
  if (team.blocks > 1) {
    wait_for_blocks(team);
    totals = nullptr;
  }
#pragma unroll 1
  for (int mel = threadIdx.x; mel < p.num_mels; mel += kThreads) {
    const Word sum = totals ? totals[mel] : load_shared_word(&team.global_sums[mel]);
    const long long total = static_cast<long long>(sum);
    const double mean = static_cast<double>(total) / frames / kFixedPoint;
    float scale = 1.0f;
    if (words == 3) {
      const Word low = totals ? totals[p.padded_mels + mel] : load_shared_word(&team.global_sums[p.padded_mels + mel]);
      const Word high =
          totals ? totals[2 * p.padded_mels + mel] : load_shared_word(&team.global_sums[2 * p.padded_mels + mel]);
      const Word size = static_cast<Word>(total < 0 ? -total : total);
      // n times the sum of squares less the square of the sum: exact, and never negative.
      const Wide spread = static_cast<Wide>(frames) * wide(low, high) - static_cast<Wide>(size) * size;
      const double degrees = frames > 1 ? static_cast<double>(frames - 1) : 1.0;
      scale = divisor(p, sqrt(wide_to_double(spread) / frames / degrees) / kFixedPoint);
    }
    team.statistics[mel] = make_float2(static_cast<float>(mean), scale);
  }
  sync_block<Barrier::kStatisticsWritten>();
}

// The same of energies themselves, at least `least`: in double precision and in a fixed order, by the one block that
// has the whole utterance.
EDGEPIN_DEVICE void energy_statistics(const LogMelParams& p, Team& team, int frames, float least) {
#pragma unroll 1
  for (int pass = 0; pass < (p.normalize == kNormalizeMeanStd ? 2 : 1); ++pass) {
#pragma unroll 1
    for (int mel = threadIdx.x % 32; mel < p.num_mels; mel += 32) {
      double sum = 0.0;
#pragma unroll 1
      for (int frame = first_frame(threadIdx.x / 32); frame < frames; frame += frame_step()) {
        const double value = fmaxf(p.staging[row_offset(p, frame) + mel], least);
        const double centered = pass == 0 ? value : value - static_cast<double>(team.statistics[mel].x);
        sum += pass == 0 ? value : centered * centered;
      }
      *own_sums(p, team.sums, threadIdx.x / 32, mel) = double_to_bits(sum);
    }
    sync_block<Barrier::kEnergySumsWritten>();
#pragma unroll 1
    for (int mel = threadIdx.x; mel < p.num_mels; mel += kThreads) {
      double sum = 0.0;
      for (int warp = 0; warp < kWarps; ++warp) sum += bits_to_double(*own_sums(p, team.sums, warp, mel));
      if (pass == 0) {
        team.statistics[mel] = make_float2(static_cast<float>(sum / frames), 1.0f);
      } else {
        team.statistics[mel].y = divisor(p, sqrt(sum / (frames > 1 ? frames - 1 : 1)));
      }
    }
    sync_block<Barrier::kEnergyStatisticsWritten>();
  }
}

}  // namespace edgepin
