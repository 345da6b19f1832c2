// What one execution context keeps on the GPU, and the launch.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "log_mel_definition.h"

namespace edgepin {

class LogMelDevice {
 public:
  // Allocates on the current GPU and waits for its uploads. Throws std::runtime_error with the name of what failed.
  explicit LogMelDevice(std::shared_ptr<const LogMelDefinition> definition);
  ~LogMelDevice();
  LogMelDevice(const LogMelDevice&) = delete;
  LogMelDevice& operator=(const LogMelDevice&) = delete;

  // One kernel on the stream; nothing is allocated and nothing waits. `staging` is (batch, frames, mels) float if `out` is
  // half and `staging_bytes` says so, else it is not used. Throws std::invalid_argument for sizes that the kernel cannot
  // take, std::runtime_error if the launch fails.
  void enqueue(const void* pcm, int64_t batch, int64_t samples, void* out, bool half, void* staging, cudaStream_t stream);

 private:
  std::shared_ptr<const LogMelDefinition> definition_;
  LogMelParams params_;
  void* memory_ = nullptr;
  int64_t resident_ = 0;  // blocks that run at the same time; 0 where the GPU cannot launch them so
};

// Of the memory that TensorRT lends a call: where values stay in float until the whole utterance is known.
size_t staging_bytes(const LogMelDefinition& definition, int64_t batch, int64_t samples, bool half);

}  // namespace edgepin
