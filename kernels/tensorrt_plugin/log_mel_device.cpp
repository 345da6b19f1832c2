#include "log_mel_device.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "log_mel_kernels.h"

namespace edgepin {
namespace {

void check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string(call) + ": " + cudaGetErrorName(error) + ", " + cudaGetErrorString(error));
}

size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

template <typename T>
size_t bytes_of(const std::vector<T>& values) {
  return sizeof(T) * values.size();
}

size_t shared_bytes(const LogMelParams& p) {
  return static_cast<size_t>(dynamic_shared_bytes(p.normalize, p.padded_mels));
}

// How many blocks run at the same time, of the variant of which fewest do.
int64_t resident_blocks(const LogMelDefinition& definition) {
  int device = 0, cooperative = 0, multiprocessors = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&cooperative, cudaDevAttrCooperativeLaunch, device), "cudaDeviceGetAttribute");
  if (definition.over_utterance() && !cooperative) return 0;
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  int fewest = 0;
  for (const bool half : {false, true}) {
    int blocks = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, log_mel_kernel(definition.fft_length(), half), kThreads,
                                                        shared_bytes(definition.params())),
          "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    fewest = half ? std::min(fewest, blocks) : blocks;
  }
  return int64_t{fewest} * multiprocessors;
}

}  // namespace

LogMelDevice::LogMelDevice(std::shared_ptr<const LogMelDefinition> definition)
    : definition_(std::move(definition)), params_(definition_->params()), resident_(resident_blocks(*definition_)) {
  const LogMelTables& tables = definition_->tables();
  const size_t window = 0, weights = window + aligned(bytes_of(tables.window));
  const size_t firsts = weights + aligned(bytes_of(tables.weights)), sums = firsts + aligned(bytes_of(tables.firsts));
  // Blocks that share an utterance run at the same time, so that there are never more utterances with sums than that.
  const size_t sums_bytes =
      definition_->over_utterance() ? 4 * static_cast<size_t>(resident_) * static_cast<size_t>(params_.workspace_words) : 0;
  check(cudaMalloc(&memory_, sums + sums_bytes), "cudaMalloc");
  unsigned char* base = static_cast<unsigned char*>(memory_);
  try {
    const auto upload = [base](size_t at, const void* from, size_t bytes) {
      if (bytes != 0) check(cudaMemcpy(base + at, from, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
    };
    upload(window, tables.window.data(), bytes_of(tables.window));
    upload(weights, tables.weights.data(), bytes_of(tables.weights));
    upload(firsts, tables.firsts.data(), bytes_of(tables.firsts));
    if (sums_bytes != 0) check(cudaMemset(base + sums, 0, sums_bytes), "cudaMemset");
    // Streams that do not wait for the default one would not wait for these either.
    check(cudaStreamSynchronize(nullptr), "cudaStreamSynchronize");
  } catch (...) {
    cudaFree(memory_);
    throw;
  }
  params_.window = reinterpret_cast<const float*>(base + window);
  params_.weights = reinterpret_cast<const float*>(base + weights);
  params_.firsts = reinterpret_cast<const int32_t*>(base + firsts);
  params_.workspace = reinterpret_cast<uint32_t*>(base + sums);
}

LogMelDevice::~LogMelDevice() { cudaFree(memory_); }

void LogMelDevice::enqueue(const void* pcm, int64_t batch, int64_t samples, void* out, bool half, void* staging,
                           cudaStream_t stream) {
  definition_->check_sizes(batch, samples);
  const int64_t frames = definition_->frames(samples);
  LogMelParams params = params_;
  params.pcm = pcm;
  params.pcm_stride = samples;
  params.samples = static_cast<int32_t>(samples);
  params.out = out;
  params.out_frames = static_cast<int32_t>(frames);
  params.staging = static_cast<float*>(half ? staging : out);
  if (staging_bytes(*definition_, batch, samples, half) != 0 && staging == nullptr)
    throw std::invalid_argument("the memory that the plugin asked for is missing");

  const int blocks = definition_->blocks_per_utterance(batch, frames, resident_);
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(batch)), block(kThreads);
  void* arguments[] = {&params};
  const void* kernel = log_mel_kernel(definition_->fft_length(), half);
  const size_t shared = shared_bytes(params);
  if (blocks > 1 && definition_->over_utterance()) {
    check(cudaLaunchCooperativeKernel(kernel, grid, block, arguments, shared, stream), "cudaLaunchCooperativeKernel");
  } else {
    check(cudaLaunchKernel(kernel, grid, block, arguments, shared, stream), "cudaLaunchKernel");
  }
}

size_t staging_bytes(const LogMelDefinition& definition, int64_t batch, int64_t samples, bool half) {
  if (!half || !definition.over_utterance()) return 0;
  const int64_t values = batch * definition.frames(samples) * definition.params().num_mels;
  return 4 * static_cast<size_t>(values);
}

}  // namespace edgepin
