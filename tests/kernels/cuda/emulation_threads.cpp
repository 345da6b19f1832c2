// The scheduler of the thread build: every CUDA thread is a thread of the host, for ThreadSanitizer to watch.

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <barrier>
#include <climits>
#include <thread>

#include "emulation.h"

namespace emulation {
namespace {

// A barrier that orders no memory, as a shuffle does not: ThreadSanitizer takes nothing from relaxed atomics, so that
// the wait does not hide that a real barrier is missing.
struct LaneBarrier {
  uint32_t arrived = 0, generation = 0;

  void arrive_and_wait() {
    const uint32_t mine = __atomic_load_n(&generation, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&arrived, 1, __ATOMIC_RELAXED) == 32) {
      __atomic_store_n(&arrived, 0, __ATOMIC_RELAXED);
      __atomic_store_n(&generation, mine + 1, __ATOMIC_RELAXED);
      syscall(SYS_futex, &generation, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
      return;
    }
    while (__atomic_load_n(&generation, __ATOMIC_RELAXED) == mine)
      syscall(SYS_futex, &generation, FUTEX_WAIT_PRIVATE, mine, nullptr, nullptr, 0);
  }
};

struct Warp {
  std::barrier<> barrier{32};
  LaneBarrier exchange;
  uint32_t lanes[32];
};

struct Block {
  explicit Block(unsigned threads) : barrier(threads) {}
  std::unique_ptr<unsigned char[]> memory;
  std::barrier<> barrier;
  std::vector<std::unique_ptr<Warp>> warps;
};

}  // namespace

struct Thread {
  Index thread, block_position;
  Block* block;
  Warp* warp;
  unsigned lane;
  size_t shared_used;
};

namespace {

const Launch* launched = nullptr;
Options chosen;
thread_local Thread self;

void run_blocks(const std::vector<Index>& positions) {
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<std::thread> threads;
  for (const Index& position : positions) {
    auto block = std::make_unique<Block>(launched->block.x);
    const size_t bytes = kStaticShared + launched->dynamic_shared;
    block->memory.reset(new unsigned char[bytes]);
    std::memset(block->memory.get(), 0xff, bytes);
    for (unsigned warp = 0; warp < launched->block.x / 32; ++warp) block->warps.push_back(std::make_unique<Warp>());
    for (unsigned index = 0; index < launched->block.x; ++index) {
      Block* home = block.get();
      threads.emplace_back([=] {
        self = {{index, 0, 0}, position, home, home->warps[index / 32].get(), index % 32, 0};
        launched->kernel();
      });
    }
    blocks.push_back(std::move(block));
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

std::string run(const Launch& launch, const Options& options) {
  launched = &launch;
  chosen = options;
  std::vector<Index> positions;
  for (unsigned y = 0; y < launch.grid.y; ++y)
    for (unsigned x = 0; x < launch.grid.x; ++x) positions.push_back({x, y, 0});
  if (launch.cooperative) {
    run_blocks(positions);
  } else {
    for (const Index& position : positions) run_blocks({position});
  }
  return "";
}

Thread& current() { return self; }
unsigned lane_of(const Thread& thread) { return thread.lane; }
Index& thread_index() { return self.thread; }
Index& block_index() { return self.block_position; }
Index& grid_size() { return const_cast<Index&>(launched->grid); }
bool has_barrier(int barrier) { return barrier != chosen.dropped_barrier; }

unsigned char* static_shared(size_t bytes) {
  unsigned char* memory = self.block->memory.get() + self.shared_used;
  self.shared_used += (bytes + 15) / 16 * 16;
  return memory;
}

unsigned char* dynamic_shared() { return self.block->memory.get() + kStaticShared; }
void block_barrier() { self.block->barrier.arrive_and_wait(); }
void warp_barrier() { self.warp->barrier.arrive_and_wait(); }

uint32_t exchange_lanes(uint32_t value, unsigned source) {
  Warp& warp = *self.warp;
  __atomic_store_n(&warp.lanes[self.lane], value, __ATOMIC_RELAXED);
  warp.exchange.arrive_and_wait();
  const uint32_t result = __atomic_load_n(&warp.lanes[source], __ATOMIC_RELAXED);
  warp.exchange.arrive_and_wait();
  return result;
}

void wait_a_moment() { std::this_thread::yield(); }

}  // namespace emulation
