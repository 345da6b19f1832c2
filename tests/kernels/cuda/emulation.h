// Enough of CUDA for the log-mel kernel to be compiled and run by a C++ compiler, and to be caught where it is wrong.
//
// Two builds. With fibers (the default) a launch is one thread of the host that goes from one CUDA thread to the next
// at barriers, in an order that the seed permutes: fast, deterministic, and it sees barriers that not all threads reach.
// With EDGEPIN_EMULATION_THREADS each CUDA thread is a thread of the host, for ThreadSanitizer. In both, shared memory
// starts out poisoned with NaNs, and any one barrier of the kernel can be switched off.
#pragma once

#define EDGEPIN_EMULATION 1

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

namespace emulation {

struct Index {
  unsigned x, y, z;
};

struct Options {
  unsigned seed = 0;         // 0: threads in their order; else a permuted schedule
  int dropped_barrier = -1;  // the number of an edgepin::Barrier
};

struct Launch {
  Index grid, block;
  unsigned dynamic_shared;
  bool cooperative;  // all blocks at the same time, else one after the other
  std::function<void()> kernel;
};

// Empty, or what the launch did wrong.
std::string run(const Launch& launch, const Options& options);

constexpr size_t kStaticShared = 48 * 1024;

// What a thread knows of itself, and the parts of the scheduler that the kernel reaches.
struct Thread;
unsigned lane_of(const Thread& thread);
Thread& current();
Index& thread_index();
Index& block_index();
Index& grid_size();
unsigned char* static_shared(size_t bytes);  // the next bytes of the block's; threads ask in the same order
unsigned char* dynamic_shared();
void block_barrier();
void warp_barrier();
uint32_t exchange_lanes(uint32_t value, unsigned source);  // the value of another lane
void wait_a_moment();                                      // in a loop that waits for other threads
bool has_barrier(int barrier);

}  // namespace emulation

// ---- the names that the kernel uses ----

#define EDGEPIN_DEVICE inline
#define EDGEPIN_TABLE inline const
#define EDGEPIN_STATIC_SHARED(type, name, count) \
  type* name = reinterpret_cast<type*>(emulation::static_shared(sizeof(type) * (count)))
#define EDGEPIN_DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(emulation::dynamic_shared())
#define EDGEPIN_HAS_BARRIER(barrier) emulation::has_barrier(static_cast<int>(barrier))

#define threadIdx emulation::thread_index()
#define blockIdx emulation::block_index()
#define gridDim emulation::grid_size()

struct alignas(8) float2 {
  float x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }

using std::abs;
using std::max;
using std::min;

inline void __syncthreads() { emulation::block_barrier(); }
inline void __syncwarp() { emulation::warp_barrier(); }
inline void __threadfence() {}

template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  static_assert(sizeof(T) == 4, "a register");
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits = emulation::exchange_lanes(bits, static_cast<unsigned>(lane) % 32);
  std::memcpy(&value, &bits, 4);
  return value;
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int step) {
  return __shfl_sync(mask, value, static_cast<int>(emulation::lane_of(emulation::current())) ^ step);
}

// Sequentially consistent, as the kernel puts fences where it needs their order.
template <typename T>
T atomicAdd(T* address, T value) {
  return __atomic_fetch_add(address, value, __ATOMIC_SEQ_CST);
}

inline uint32_t atomicMax(uint32_t* address, uint32_t value) {
  uint32_t old = __atomic_load_n(address, __ATOMIC_SEQ_CST);
  while (old < value && !__atomic_compare_exchange_n(address, &old, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
  }
  return old;
}

inline int __float_as_int(float value) {
  int bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
inline float __int_as_float(int bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline long long __double_as_longlong(double value) {
  long long bits;
  std::memcpy(&bits, &value, 8);
  return bits;
}
inline double __longlong_as_double(long long bits) {
  double value;
  std::memcpy(&value, &bits, 8);
  return value;
}
inline long long __float2ll_rn(float value) { return std::llrint(value); }

struct __half {
  uint16_t bits;
};

// Round to nearest, ties to even; for finite values that a half can hold.
inline __half __float2half_rn(float value) {
  const uint32_t bits = static_cast<uint32_t>(__float_as_int(value));
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const float size = std::fabs(value);
  if (std::isnan(value)) return {static_cast<uint16_t>(sign | 0x7e00u)};
  if (size < 6.103515625e-05f) {  // subnormal: a multiple of 2^-24
    return {static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(size * 16777216.0f)))};
  }
  uint32_t magnitude = (bits & 0x7fffffffu) - (112u << 23);
  magnitude += 0xfffu + (magnitude >> 13 & 1u);
  return {static_cast<uint16_t>(sign | static_cast<uint16_t>(magnitude >> 13))};
}

namespace edgepin {

inline int opaque(int value) { return value; }

inline uint32_t load_acquire(const uint32_t* address) {
  emulation::wait_a_moment();
  return __atomic_load_n(address, __ATOMIC_ACQUIRE);
}
template <typename T>
T load_shared_word(const T* address) {
  return __atomic_load_n(address, __ATOMIC_RELAXED);
}

}  // namespace edgepin
