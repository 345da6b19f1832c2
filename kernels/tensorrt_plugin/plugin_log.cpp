#include "plugin_log.h"

#include <atomic>
#include <cstdio>

namespace edgepin {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

nvinfer1::ILogger* find_logger() {
  nvinfer1::ILoggerFinder* finder = logger_finder;
  nvinfer1::ILogger* logger = finder ? finder->findLogger() : nullptr;
  return logger ? logger : getLogger();
}

}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept { logger_finder = finder; }

void log_error(const char* where, const char* what) noexcept {
  char line[1024];
  std::snprintf(line, sizeof line, "edgepin LogMel, %s: %s", where, what);
  try {
    if (nvinfer1::ILogger* logger = find_logger()) {
      logger->log(nvinfer1::ILogger::Severity::kERROR, line);
      return;
    }
  } catch (...) {
  }
  std::fprintf(stderr, "%s\n", line);
}

}  // namespace edgepin
