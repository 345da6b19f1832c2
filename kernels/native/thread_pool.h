// Threads that wait for work between calls, so that a call starts none.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <memory>

namespace edgepin {

class ThreadPool {
 public:
  // `threads` counts the caller's own.
  explicit ThreadPool(std::size_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  std::size_t threads() const { return threads_; }

  // task(context) on every thread, the caller's among them; returns when all are done. A call that comes while another one
  // has the threads runs on its caller's alone. So tasks share their work by a counter, not by their number.
  void run(void (*task)(void*), void* context);

 private:
  struct Workers;

  const std::size_t threads_;
  std::atomic_flag taken_ = ATOMIC_FLAG_INIT;
  std::unique_ptr<Workers> workers_;
  pid_t owner_ = 0;
};

}  // namespace edgepin
