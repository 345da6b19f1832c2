// The functions of the CUDA runtime that the plugin calls, on the emulated driver; launches run the float kernel.

#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstring>
#include <string>

#include "emulated_float.h"
#include "log_mel_kernels.h"

extern "C" {
int cuDevicePrimaryCtxRetain(void** context, int device);
int cuCtxPushCurrent_v2(void* context);
int cuDeviceGetAttribute(int* value, int attribute, int device);
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* function, int threads, size_t shared);
int cuMemAlloc_v2(uint64_t* address, size_t size);
int cuMemFree_v2(uint64_t address);
int cuMemcpyHtoD_v2(uint64_t to, const void* from, size_t size);
int cuMemsetD32Async(uint64_t to, unsigned value, size_t words, void* stream);
int cuStreamSynchronize(void* stream);
}

namespace {

struct Kernel {
  int fft_length;
  bool half;
};
const Kernel kernels[] = {{512, false}, {512, true}, {400, false}, {400, true}};

std::string launches, failure;
unsigned seed = 0;
int launch_code = 0;

// The runtime makes the primary context current on first use.
void use_primary_context() {
  thread_local bool used = false;
  if (used) return;
  used = true;
  void* context = nullptr;
  cuDevicePrimaryCtxRetain(&context, 0);
  cuCtxPushCurrent_v2(context);
}

cudaError_t result(int code) { return static_cast<cudaError_t>(code); }

cudaError_t launch(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared, cudaStream_t stream,
                   bool cooperative) {
  launches += std::string(cooperative ? "cooperative" : "plain") + " " + std::to_string(grid.x) + "x" +
              std::to_string(grid.y) + " stream=" + std::to_string(reinterpret_cast<uintptr_t>(stream)) + "\n";
  if (launch_code != 0) return result(launch_code);
  int blocks = 0, multiprocessors = 0;
  cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, nullptr, 0, 0);
  cuDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0);
  if (cooperative && grid.x * grid.y > static_cast<unsigned>(blocks * multiprocessors))
    return cudaErrorCooperativeLaunchTooLarge;
  if (block.x != edgepin::kThreads || grid.z != 1) return cudaErrorInvalidConfiguration;
  const Kernel& kernel = *static_cast<const Kernel*>(function);
  edgepin::LogMelParams params;
  std::memcpy(&params, arguments[0], sizeof params);
  failure = run_float_log_mel({kernel.fft_length, kernel.half, grid.x, grid.y, static_cast<unsigned>(shared), cooperative, seed},
                              params);
  return failure.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}

}  // namespace

const void* edgepin::log_mel_kernel(int fft_length, bool half) {
  for (const Kernel& kernel : kernels)
    if (kernel.fft_length == fft_length && kernel.half == half) return &kernel;
  return nullptr;
}

extern "C" {

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return result(cuDeviceGetAttribute(value, attribute, device));
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function, int threads, size_t shared) {
  use_primary_context();
  return result(cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, const_cast<void*>(function), threads, shared));
}
cudaError_t cudaMalloc(void** address, size_t size) {
  use_primary_context();
  uint64_t number = 0;
  const int code = cuMemAlloc_v2(&number, size);
  *address = reinterpret_cast<void*>(number);
  return result(code);
}
cudaError_t cudaFree(void* address) { return address ? result(cuMemFree_v2(reinterpret_cast<uint64_t>(address))) : cudaSuccess; }
cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind kind) {
  if (kind != cudaMemcpyHostToDevice) return cudaErrorInvalidMemcpyDirection;
  return result(cuMemcpyHtoD_v2(reinterpret_cast<uint64_t>(to), from, size));
}
cudaError_t cudaMemset(void* to, int value, size_t size) {
  if (value != 0 || size % 4 != 0) return cudaErrorInvalidValue;
  return result(cuMemsetD32Async(reinterpret_cast<uint64_t>(to), 0, size / 4, nullptr));
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return result(cuStreamSynchronize(stream)); }
cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared, cudaStream_t stream) {
  return launch(function, grid, block, arguments, shared, stream, false);
}
cudaError_t cudaLaunchCooperativeKernel(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared,
                                        cudaStream_t stream) {
  return launch(function, grid, block, arguments, shared, stream, true);
}
const char* cudaGetErrorName(cudaError_t error) { return error == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaError"; }
const char* cudaGetErrorString(cudaError_t error) { return error == cudaErrorLaunchFailure ? failure.c_str() : "a failure"; }

// ---- for the tests ----

const char* test_launches() {  // since the last time
  static std::string last;
  last.swap(launches);
  launches.clear();
  return last.c_str();
}
void test_set(unsigned schedule_seed, int code_of_launches) {
  seed = schedule_seed;
  launch_code = code_of_launches;
}
// The kernel itself, as the launcher in Python would start it.
const char* test_float_kernel(int fft_length, int half, const edgepin::LogMelParams* params, unsigned blocks,
                              unsigned utterances, unsigned shared, int cooperative) {
  failure = run_float_log_mel({fft_length, half != 0, blocks, utterances, shared, cooperative != 0, seed}, *params);
  return failure.c_str();
}

}  // extern "C"
