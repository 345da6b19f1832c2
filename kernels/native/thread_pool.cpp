#include "thread_pool.h"

#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace edgepin {

struct ThreadPool::Workers {
  explicit Workers(std::size_t count) {
    threads.reserve(count);
    for (std::size_t i = 0; i < count; ++i) threads.emplace_back(&Workers::loop, this);
  }

  ~Workers() {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      stop = true;
    }
    wake.notify_all();
    for (std::thread& thread : threads) thread.join();
  }

  void run(void (*new_task)(void*), void* new_context) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      task = new_task;
      context = new_context;
      busy = threads.size();
      ++round;
    }
    wake.notify_all();
    new_task(new_context);
    std::unique_lock<std::mutex> lock(mutex);
    done.wait(lock, [this] { return busy == 0; });
  }

  void loop() {
    std::size_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
      wake.wait(lock, [&] { return stop || round != seen; });
      if (stop) return;
      seen = round;
      lock.unlock();
      task(context);  // neither changes while anyone is busy
      lock.lock();
      if (--busy == 0) done.notify_one();
    }
  }

  std::mutex mutex;
  std::condition_variable wake, done;
  std::vector<std::thread> threads;
  void (*task)(void*) = nullptr;
  void* context = nullptr;
  std::size_t round = 0, busy = 0;
  bool stop = false;
};

ThreadPool::ThreadPool(std::size_t threads) : threads_(threads) {}

ThreadPool::~ThreadPool() {
  // The child of a fork has no such threads: to join them would wait forever.
  if (owner_ != getpid()) (void)workers_.release();
}

void ThreadPool::run(void (*task)(void*), void* context) {
  if (threads_ == 1 || taken_.test_and_set(std::memory_order_acquire)) {
    task(context);
    return;
  }
  if (owner_ != getpid()) {
    (void)workers_.release();
    workers_ = std::make_unique<Workers>(threads_ - 1);
    owner_ = getpid();
  }
  workers_->run(task, context);
  taken_.clear(std::memory_order_release);
}

}  // namespace edgepin
