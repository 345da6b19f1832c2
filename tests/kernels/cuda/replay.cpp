// Runs one recorded launch of the kernel: replay FILE [DROPPED_BARRIER]. For ThreadSanitizer, which must own the process.
//
// The file, as tests write it: seven 32-bit numbers (fft_length, half, grid x and y, dynamic shared bytes, cooperative,
// bytes of memory), LogMelParams with offsets into the memory plus 1 for its pointers (0 is null), and the memory.

#include <cstdio>

#include "emulated_kernel.h"

// The type of the samples in the file.
#ifndef EDGEPIN_SAMPLE
#define EDGEPIN_SAMPLE int16_t
#endif

int main(int count, char** arguments) {
  std::FILE* file = count > 1 ? std::fopen(arguments[1], "rb") : nullptr;
  int32_t header[7];
  edgepin::LogMelParams params;
  if (!file || std::fread(header, sizeof header, 1, file) != 1 || std::fread(&params, sizeof params, 1, file) != 1) return 2;
  unsigned char* memory = static_cast<unsigned char*>(std::aligned_alloc(256, (header[6] + 255) / 256 * 256));
  if (std::fread(memory, 1, header[6], file) != static_cast<size_t>(header[6])) return 2;
  std::fclose(file);
  const auto place = [memory](auto& pointer) {
    const uintptr_t offset = reinterpret_cast<uintptr_t>(pointer);
    pointer = offset == 0 ? nullptr : reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(memory + offset - 1);
  };
  place(params.pcm);
  place(params.lengths);
  place(params.out);
  place(params.staging);
  place(params.workspace);
  place(params.window);
  place(params.weights);
  place(params.firsts);
  emulation::Launch launch{{static_cast<unsigned>(header[2]), static_cast<unsigned>(header[3]), 1},
                           {edgepin::kThreads, 1, 1}, static_cast<unsigned>(header[4]), header[5] != 0, {}};
  emulation::Options options;
  if (count > 2) options.dropped_barrier = std::atoi(arguments[2]);
  const std::string failure = emulation::run_log_mel<EDGEPIN_SAMPLE>(header[0], header[1] != 0, params, launch, options);
  if (!failure.empty()) std::fprintf(stderr, "%s\n", failure.c_str());
  return failure.empty() ? 0 : 1;
}
