// What goes wrong, to TensorRT's own logger. No exception leaves the library.
#pragma once

#include <NvInferRuntime.h>

#include <exception>

namespace edgepin {

// Where to look for the logger; TensorRT gives it when it loads this library. Without it, the logger of the process.
void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept;

void log_error(const char* where, const char* what) noexcept;

// What `body` returns; or `failure`, when it throws, with the exception in the log.
template <typename Result, typename Body>
Result guarded(const char* where, Result failure, Body&& body) noexcept {
  try {
    return body();
  } catch (const std::exception& error) {
    log_error(where, error.what());
  } catch (...) {
    log_error(where, "an exception of unknown type");
  }
  return failure;
}

}  // namespace edgepin
