// The compiled kernel without Python, for machines that the build cannot run on and for sanitizers: cases from standard
// input, results to standard output. Little-endian on both sides; `native_driver.py` writes and reads them.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "plan.h"

namespace {

void read_exactly(void* to, std::size_t bytes) {
  if (std::fread(to, 1, bytes, stdin) != bytes) {
    std::fprintf(stderr, "the input ends early\n");
    std::exit(2);
  }
}

double number() {
  double value;
  read_exactly(&value, sizeof value);
  return value;
}

std::size_t count() { return static_cast<std::size_t>(number()); }

template <class T>
std::vector<T> array() {
  std::vector<T> values(count());
  read_exactly(values.data(), values.size() * sizeof(T));
  return values;
}

std::string text() {
  const std::vector<char> characters = array<char>();
  return {characters.begin(), characters.end()};
}

template <class Sample>
void run_case(edgepin::Plan& plan, std::size_t num_mels, std::size_t callers) {
  const std::size_t batch = count(), frames = count();
  const std::vector<Sample> pcm = array<Sample>();
  const std::size_t samples = pcm.size() / batch;
  std::vector<std::vector<float>> outs(callers, std::vector<float>(batch * frames * num_mels));
  std::vector<std::thread> threads;
  for (std::vector<float>& out : outs)
    threads.emplace_back([&] { plan.run(pcm.data(), batch, samples, frames, out.data()); });
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<float>& out : outs)
    if (std::memcmp(out.data(), outs[0].data(), out.size() * sizeof(float)) != 0) {
      std::fprintf(stderr, "two callers got different results\n");
      std::exit(3);
    }
  std::fwrite(outs[0].data(), sizeof(float), outs[0].size(), stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--kernels") == 0) {
    for (const edgepin::Kernel* kernel : edgepin::available_kernels()) std::printf("%s\n", kernel->name);
    return 0;
  }
  for (std::size_t left = count(); left > 0; --left) {
    const std::string kernel = text();
    const std::size_t threads = count(), callers = count();
    edgepin::PlanOptions options{};
    options.frame_length = count();
    options.hop_length = count();
    options.fft_length = count();
    options.frame_lead = count();
    options.padding = static_cast<edgepin::Padding>(count());
    options.remove_dc = count() != 0;
    options.preemphasis = number();
    options.preemphasis_over_utterance = count() != 0;
    options.int16_scale = number();
    options.float_scale = number();
    options.log = static_cast<edgepin::Log>(count());
    options.add_floor = count() != 0;
    options.floor = static_cast<float>(number());
    options.log_of_floor = static_cast<float>(number());
    options.dynamic_range = static_cast<float>(number());
    options.output_offset = static_cast<float>(number());
    options.output_scale = static_cast<float>(number());
    options.normalize = static_cast<edgepin::Normalize>(count());
    options.std_guard = number();
    options.window = array<double>();
    options.mel_firsts = array<std::int32_t>();
    options.mel_counts = array<std::int32_t>();
    options.mel_weights = array<float>();
    options.num_mels = options.mel_counts.size();

    edgepin::Plan plan(options, kernel, threads);
    if (count() != 0)
      run_case<float>(plan, options.num_mels, callers);
    else
      run_case<std::int16_t>(plan, options.num_mels, callers);
  }
  return 0;
}
