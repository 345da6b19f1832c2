// The functions of libcuda that the launcher calls, on a GPU that is emulated: the launcher's own marshalling, checks
// and memory are tested as they are, and the kernel behind them computes. Device memory is memory of the host between
// two pages that cannot be touched, poisoned when it is allocated.
//
// The "cubin" is a text with the compiler's -D options, as the tests' stand-in for nvcc writes it. emu_* functions are
// for the tests: they set up the device, read the log of calls, and make a call fail.

#include <sys/mman.h>
#include <unistd.h>

#include <map>
#include <mutex>
#include <sstream>

#include "emulated_kernel.h"

namespace {

enum Result { kSuccess = 0, kInvalidValue = 1, kInvalidContext = 201, kNotFound = 500, kLaunchFailed = 719,
              kCooperativeTooLarge = 720 };

struct Module {
  int fft_length;
  bool half;
};

struct Allocation {
  void* region;
  size_t region_size, size;
};

struct Device {
  int count = 1, multiprocessors = 4, blocks = 3, cooperative = 1, capturing = 0, major = 8, minor = 7;
  emulation::Options options;
  std::map<uint64_t, Allocation> memory;
  std::string log, fail_name, last_failure, emulation_failure;
  int fail_code = 0;
} device;

std::mutex mutex;
thread_local std::vector<void*> contexts;  // of this thread, as the driver keeps them
int primary_context = 0;                   // its address is the handle

// Every call is logged; the one that a test has chosen fails.
int enter(const char* name, const std::string& detail = "") {
  device.log += std::string(name) + (detail.empty() ? "" : " " + detail) + "\n";
  if (device.fail_name == name) {
    device.fail_name.clear();
    return device.fail_code;
  }
  return kSuccess;
}

bool has_context() { return !contexts.empty() && contexts.back() == &primary_context; }

const Allocation* allocation_of(uint64_t address) {
  auto after = device.memory.upper_bound(address);
  if (after == device.memory.begin()) return nullptr;
  --after;
  return address < after->first + after->second.size ? &after->second : nullptr;
}

int allocate(uint64_t* address, size_t size, bool at_end) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t inner = (size + page - 1) / page * page, whole = inner + 2 * page;
  unsigned char* region = static_cast<unsigned char*>(
      mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (region == MAP_FAILED || size == 0) return kInvalidValue;
  std::memset(region, 0xff, whole);
  mprotect(region, page, PROT_NONE);
  mprotect(region + page + inner, page, PROT_NONE);
  unsigned char* first = at_end ? region + page + inner - size : region + page;
  *address = reinterpret_cast<uint64_t>(first);
  device.memory[*address] = {region, whole, size};
  return kSuccess;
}

int launch(void* function, const unsigned* shape, void* stream, void** parameters, bool cooperative) {
  std::ostringstream detail;
  detail << "grid=" << shape[0] << "," << shape[1] << "," << shape[2] << " block=" << shape[3] << " shared=" << shape[6]
         << " stream=" << reinterpret_cast<uintptr_t>(stream);
  if (int code = enter(cooperative ? "cuLaunchCooperativeKernel" : "cuLaunchKernel", detail.str())) return code;
  if (!has_context()) return kInvalidContext;
  if (cooperative && shape[0] * shape[1] > static_cast<unsigned>(device.multiprocessors * device.blocks))
    return kCooperativeTooLarge;
  const Module& module = *static_cast<Module*>(function);
  edgepin::LogMelParams params;
  std::memcpy(&params, parameters[0], sizeof params);
  emulation::Launch launch{{shape[0], shape[1], shape[2]}, {shape[3], shape[4], shape[5]}, shape[6], cooperative, {}};
  device.emulation_failure = emulation::run_log_mel(module.fft_length, module.half, params, launch, device.options);
  return device.emulation_failure.empty() ? kSuccess : kLaunchFailed;
}

}  // namespace

#define LOCKED std::lock_guard<std::mutex> lock(mutex)

extern "C" {

int cuInit(unsigned) { LOCKED; return enter("cuInit"); }
int cuGetErrorName(int code, const char** text) {
  static const std::map<int, const char*> names = {{1, "CUDA_ERROR_INVALID_VALUE"}, {2, "CUDA_ERROR_OUT_OF_MEMORY"},
      {100, "CUDA_ERROR_NO_DEVICE"}, {201, "CUDA_ERROR_INVALID_CONTEXT"}, {719, "CUDA_ERROR_LAUNCH_FAILED"},
      {720, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"}};
  const auto found = names.find(code);
  *text = found == names.end() ? nullptr : found->second;
  return found == names.end() ? kInvalidValue : kSuccess;
}
int cuGetErrorString(int code, const char** text) {
  *text = code == kLaunchFailed ? device.emulation_failure.c_str() : "";
  return kSuccess;
}
int cuDriverGetVersion(int* version) { LOCKED; *version = 13000; return enter("cuDriverGetVersion"); }
int cuDeviceGetCount(int* count) { LOCKED; *count = device.count; return enter("cuDeviceGetCount"); }
int cuDeviceGet(int* handle, int index) { LOCKED; *handle = index; return enter("cuDeviceGet"); }
int cuDeviceGetName(char* name, int size, int) { LOCKED; std::strncpy(name, "emulated", size); return enter("cuDeviceGetName"); }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  LOCKED;
  switch (attribute) {
    case 16: *value = device.multiprocessors; break;
    case 75: *value = device.major; break;
    case 76: *value = device.minor; break;
    case 95: *value = device.cooperative; break;
    default: return kInvalidValue;
  }
  return enter("cuDeviceGetAttribute");
}
int cuDevicePrimaryCtxRetain(void** context, int) { LOCKED; *context = &primary_context; return enter("cuDevicePrimaryCtxRetain"); }
int cuDevicePrimaryCtxRelease_v2(int) { LOCKED; return enter("cuDevicePrimaryCtxRelease"); }
int cuCtxPushCurrent_v2(void* context) {
  LOCKED;
  if (int code = enter("cuCtxPushCurrent")) return code;
  contexts.push_back(context);
  return kSuccess;
}
int cuCtxPopCurrent_v2(void** context) {
  LOCKED;
  if (contexts.empty()) return kInvalidContext;
  *context = contexts.back();
  contexts.pop_back();
  return enter("cuCtxPopCurrent");
}
int cuModuleLoadData(void** module, const char* image) {
  LOCKED;
  if (int code = enter("cuModuleLoadData")) return code;
  if (!has_context()) return kInvalidContext;
  const std::string text(image);
  *module = new Module{text.find("FFT_LENGTH=400") != std::string::npos ? 400 : 512,
                       text.find("STORE_HALF=1") != std::string::npos};
  return kSuccess;
}
int cuModuleUnload(void* module) { LOCKED; delete static_cast<Module*>(module); return enter("cuModuleUnload"); }
int cuModuleGetFunction(void** function, void* module, const char* name) {
  LOCKED;
  *function = module;
  return std::strcmp(name, "edgepin_log_mel") == 0 ? enter("cuModuleGetFunction") : static_cast<int>(kNotFound);
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int, size_t) {
  LOCKED;
  *blocks = device.blocks;
  return has_context() ? enter("cuOccupancy") : static_cast<int>(kInvalidContext);
}
int cuMemAlloc_v2(uint64_t* address, size_t size) {
  LOCKED;
  if (int code = enter("cuMemAlloc", std::to_string(size))) return code;
  return has_context() ? allocate(address, size, false) : static_cast<int>(kInvalidContext);
}
int cuMemFree_v2(uint64_t address) {
  LOCKED;
  const auto found = device.memory.find(address);
  if (found == device.memory.end()) return kInvalidValue;
  munmap(found->second.region, found->second.region_size);
  device.memory.erase(found);
  return enter("cuMemFree");
}
int cuMemcpyHtoD_v2(uint64_t to, const void* from, size_t size) {
  LOCKED;
  if (int code = enter("cuMemcpyHtoD")) return code;
  std::memcpy(reinterpret_cast<void*>(to), from, size);
  return kSuccess;
}
int cuMemsetD32Async(uint64_t to, unsigned value, size_t words, void* stream) {
  LOCKED;
  if (int code = enter("cuMemsetD32Async", "stream=" + std::to_string(reinterpret_cast<uintptr_t>(stream)))) return code;
  for (size_t i = 0; i < words; ++i) reinterpret_cast<uint32_t*>(to)[i] = value;
  return kSuccess;
}
int cuStreamSynchronize(void*) { LOCKED; return enter("cuStreamSynchronize"); }
int cuStreamIsCapturing(void*, int* status) { LOCKED; *status = device.capturing; return enter("cuStreamIsCapturing"); }
int cuPointerGetAttribute(void* value, int attribute, uint64_t address) {
  LOCKED;
  if (allocation_of(address) == nullptr) return kInvalidValue;
  *static_cast<int*>(value) = attribute == 2 ? 2 : 0;
  return kSuccess;
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** parameters, void**) {
  LOCKED;
  const unsigned shape[] = {gx, gy, gz, bx, by, bz, shared};
  return launch(function, shape, stream, parameters, false);
}
int cuLaunchCooperativeKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                              unsigned bz, unsigned shared, void* stream, void** parameters) {
  LOCKED;
  const unsigned shape[] = {gx, gy, gz, bx, by, bz, shared};
  return launch(function, shape, stream, parameters, true);
}

// ---- for the tests ----

void emu_reset() {
  LOCKED;
  auto memory = std::move(device.memory);
  device = Device();
  device.memory = std::move(memory);
}
void emu_set_device(int count, int multiprocessors, int blocks, int cooperative, int capturing) {
  LOCKED;
  device.count = count;
  device.multiprocessors = multiprocessors;
  device.blocks = blocks;
  device.cooperative = cooperative;
  device.capturing = capturing;
}
void emu_set_options(unsigned seed, int dropped_barrier) { LOCKED; device.options = {seed, dropped_barrier}; }
void emu_fail(const char* name, int code) { LOCKED; device.fail_name = name; device.fail_code = code; }
size_t emu_log(char* text, size_t size) {  // its length; it is copied if there is room, and begins anew
  LOCKED;
  const size_t length = device.log.size();
  if (length < size) {
    std::memcpy(text, device.log.c_str(), length + 1);
    device.log.clear();
  }
  return length;
}
uint64_t emu_allocate(size_t size, int at_end) {
  LOCKED;
  uint64_t address = 0;
  allocate(&address, size, at_end != 0);
  return address;
}
int emu_free(uint64_t address) { return cuMemFree_v2(address); }
int emu_allocations() { LOCKED; return static_cast<int>(device.memory.size()); }
int emu_contexts() { return static_cast<int>(contexts.size()); }
int emu_barriers() { return static_cast<int>(edgepin::Barrier::kCount); }
int emu_params_layout(int index) {  // what the launcher's mirror must agree with
  using edgepin::LogMelParams;
  const size_t layout[] = {sizeof(LogMelParams), offsetof(LogMelParams, pcm_stride), offsetof(LogMelParams, samples),
      offsetof(LogMelParams, keep), offsetof(LogMelParams, mel_taps), offsetof(LogMelParams, log_of_floor),
      offsetof(LogMelParams, workspace_words)};
  return static_cast<int>(layout[index]);
}
int emu_shared_bytes(int normalize, int padded_mels) { return edgepin::dynamic_shared_bytes(normalize, padded_mels); }
int emu_workspace_words(int normalize, int padded_mels) { return edgepin::workspace_words(normalize, padded_mels); }

}  // extern "C"
