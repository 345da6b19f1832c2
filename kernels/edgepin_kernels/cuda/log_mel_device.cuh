// The few things that differ between nvcc and the test emulation, which defines EDGEPIN_EMULATION and provides
// the same names on the host.
#pragma once

#include "log_mel_params.h"

#ifndef EDGEPIN_EMULATION

#include <cuda_fp16.h>

#define EDGEPIN_DEVICE __device__ __forceinline__
#define EDGEPIN_TABLE __device__ const
#define EDGEPIN_STATIC_SHARED(type, name, count) __shared__ type name[count]
#define EDGEPIN_DYNAMIC_SHARED(type, name) extern __shared__ type name[]
// Tests switch off one barrier at a time, to see that its absence is noticed.
#define EDGEPIN_HAS_BARRIER(barrier) true

namespace edgepin {

EDGEPIN_DEVICE uint32_t load_acquire(const uint32_t* address) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
  return value;
}

// The value as something that the compiler knows nothing of: what is computed from it stays in the loop, where it costs
// a load that hits the first-level cache, and does not wait outside it in registers that spill.
EDGEPIN_DEVICE int opaque(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

// Past the first-level cache, which is not coherent with what other multiprocessors add.
EDGEPIN_DEVICE uint32_t load_shared_word(const uint32_t* address) { return __ldcg(address); }
EDGEPIN_DEVICE unsigned long long load_shared_word(const unsigned long long* address) { return __ldcg(address); }

}  // namespace edgepin

#endif

namespace edgepin {

// Every barrier of the kernel, by what it separates.
enum class Barrier : int {
  kSamplesWritten = 0,
  kSamplesRead,
  kFirstStageWritten,
  kFirstStageRead,
  kSecondStageWritten,
  kSecondStageRead,
  kPowerWritten,
  kPowerRead,
  kMaximaWritten,
  kSumsWritten,
  kStatisticsWritten,
  kEnergySumsWritten,
  kEnergyStatisticsWritten,
  kArrived,
  kReleased,
  kWorkspaceRead,
  kLastKnown,
  kCount,
};

template <Barrier kBarrier>
EDGEPIN_DEVICE void sync_warp() {
  if (EDGEPIN_HAS_BARRIER(kBarrier)) __syncwarp();
}

template <Barrier kBarrier>
EDGEPIN_DEVICE void sync_block() {
  if (EDGEPIN_HAS_BARRIER(kBarrier)) __syncthreads();
}

constexpr unsigned kAllLanes = 0xffffffffu;

EDGEPIN_DEVICE int warp_sum(int value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

EDGEPIN_DEVICE float warp_sum(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

EDGEPIN_DEVICE float warp_max(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, step));
  return value;
}

EDGEPIN_DEVICE void store(float* address, float value) { *address = value; }

// Held to the largest half: energies without a logarithm may lie beyond it, and an infinity would spoil what follows.
EDGEPIN_DEVICE void store(__half* address, float value) {
  *address = __float2half_rn(fminf(fmaxf(value, -65504.0f), 65504.0f));
}

}  // namespace edgepin
