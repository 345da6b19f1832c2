// The processor's peak rates: independent additions, or fused multiplications and additions, on the widest vectors that it has,
// all in registers.
#include <cstddef>
#include <cstdint>
#include <utility>

namespace {

// Enough independent chains to hide the latency of every pipe, and few enough for the registers.
#if defined(__AVX512F__)
constexpr std::size_t kBytes = 64, kChains = 24;
#elif defined(__AVX__)
constexpr std::size_t kBytes = 32, kChains = 12;
#elif defined(__aarch64__)
constexpr std::size_t kBytes = 16, kChains = 24;
#else
constexpr std::size_t kBytes = 16, kChains = 12;
#endif

typedef float Floats __attribute__((vector_size(kBytes)));

// What the compiler cannot know, it cannot fold.
volatile float g_start = 1.0f, g_factor = 0.5f, g_term = 0.75f, g_sink;

Floats all(float value) {
  Floats floats;
  for (std::size_t i = 0; i < kBytes / sizeof(float); ++i) floats[i] = value;
  return floats;
}

// What comes out of here is in a register, and is nothing that the compiler knows anything of.
inline Floats opaque(Floats x) {
#if defined(__SSE__) && defined(__AVX512F__)
  asm volatile("" : "+v"(x));
#elif defined(__SSE__)
  asm volatile("" : "+x"(x));
#elif defined(__aarch64__)
  asm volatile("" : "+w"(x));
#endif
  return x;
}

// The chains by constant indices: an array that is walked would live in memory, and its loads would be what is timed.
template <class Step, std::size_t... I>
void run_chains(std::int64_t steps, Step step, std::index_sequence<I...>) {
  Floats chains[kChains] = {(static_cast<void>(I), all(g_start))...};
  for (std::int64_t i = 0; i < steps; ++i) ((chains[I] = opaque(step(chains[I]))), ...);
  Floats sum = all(0.0f);
  ((sum += chains[I]), ...);
  g_sink = sum[0];
}

template <class Step>
void run(std::int64_t steps, Step step) {
  run_chains(steps, step, std::make_index_sequence<kChains>());
}

}  // namespace

extern "C" {

std::int64_t lanes() { return kBytes / sizeof(float); }
std::int64_t chains() { return kChains; }

// Each step is one vector addition in every chain.
void additions(std::int64_t steps) {
  const Floats term = all(g_term);
  run(steps, [=](Floats x) { return x + term; });
}

// Each step is one vector multiplication and addition in every chain; they tend to 1.5, so no number is ever slow.
void fused(std::int64_t steps) {
  const Floats factor = all(g_factor), term = all(g_term);
  run(steps, [=](Floats x) { return x * factor + term; });
}
}
