// The scheduler of the fiber build: every CUDA thread is a ucontext, one of which runs at a time until its next barrier.

#include <ucontext.h>

#include <random>

#include "emulation.h"

namespace emulation {
namespace {

constexpr size_t kStack = 64 * 1024;
constexpr long kPatience = 300'000;  // turns of waiting loops, after which nothing will come any more

struct Barrier {
  unsigned expected = 0, arrived = 0;
  const char* what = nullptr;
  std::vector<Thread*> waiting;
};

struct Warp {
  Barrier barrier;
  uint32_t lanes[32];
};

struct Block {
  std::unique_ptr<unsigned char[]> memory;
  Barrier barrier;
  std::vector<Warp> warps;
};

}  // namespace

struct Thread {
  Index thread, block_position;
  Block* block;
  Warp* warp;
  unsigned lane;
  size_t shared_used;
  long priority;
  ucontext_t context;
};

namespace {

struct Scheduler {
  const Launch* launch = nullptr;
  Options options;
  std::vector<Thread*> ready;  // from `next` on
  size_t next = 0;
  Thread* running = nullptr;
  ucontext_t home;
  std::string failure;
  size_t finished = 0;
  long waits = 0;
  std::mt19937 random;
} scheduler;

// Stacks are kept from one launch to the next.
std::vector<std::unique_ptr<unsigned char[]>> stacks;

void leave() { swapcontext(&scheduler.running->context, &scheduler.home); }

void fail(const std::string& message) {
  if (scheduler.failure.empty()) scheduler.failure = message;
  leave();  // and never come back
}

void arrive(Barrier& barrier, const char* what) {
  if (barrier.arrived > 0 && barrier.what != what)
    fail(std::string("threads wait for different things: ") + barrier.what + " and " + what);
  barrier.what = what;
  if (++barrier.arrived < barrier.expected) {
    barrier.waiting.push_back(scheduler.running);
    leave();
    return;
  }
  barrier.arrived = 0;
  scheduler.waits = 0;
  // Whoever came last goes back into the queue too, so that the schedule decides who goes on first.
  for (Thread* thread : barrier.waiting) scheduler.ready.push_back(thread);
  barrier.waiting.clear();
  scheduler.ready.push_back(scheduler.running);
  leave();
}

// Seed 0 keeps the order in which threads became ready. Odd seeds take any of them. Even seeds give each thread a
// priority for the whole launch, so that some run as far ahead and some stay as far behind as barriers let them.
Thread* take_next() {
  std::vector<Thread*>& ready = scheduler.ready;
  size_t& next = scheduler.next;
  if (next > 65536) {
    ready.erase(ready.begin(), ready.begin() + static_cast<long>(next));
    next = 0;
  }
  size_t chosen = next;
  if (scheduler.options.seed % 2 == 1) {
    chosen += scheduler.random() % (ready.size() - next);
  } else if (scheduler.options.seed != 0) {
    for (size_t i = next; i < ready.size(); ++i)
      if (ready[i]->priority > ready[chosen]->priority) chosen = i;
  }
  std::swap(ready[next], ready[chosen]);
  return ready[next++];
}

void thread_main() {
  scheduler.launch->kernel();
  ++scheduler.finished;
  scheduler.waits = 0;
  leave();
}

std::string run_blocks(const std::vector<Index>& positions) {
  const Launch& launch = *scheduler.launch;
  const unsigned threads = launch.block.x;
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<std::unique_ptr<Thread>> all;
  while (stacks.size() < positions.size() * threads) stacks.emplace_back(new unsigned char[kStack]);
  scheduler.ready.clear();
  scheduler.next = 0;
  scheduler.finished = 0;
  for (const Index& position : positions) {
    auto block = std::make_unique<Block>();
    const size_t bytes = kStaticShared + launch.dynamic_shared;
    block->memory.reset(new unsigned char[bytes]);
    std::memset(block->memory.get(), 0xff, bytes);  // a NaN in every float and double
    block->barrier.expected = threads;
    block->warps.resize(threads / 32);
    for (unsigned number = 0; number < threads; ++number) {
      auto thread = std::make_unique<Thread>();
      thread->thread = {number, 0, 0};
      thread->block_position = position;
      thread->block = block.get();
      thread->warp = &block->warps[number / 32];
      thread->warp->barrier.expected = 32;
      thread->lane = number % 32;
      thread->shared_used = 0;
      thread->priority = static_cast<long>(scheduler.random());
      getcontext(&thread->context);
      thread->context.uc_stack.ss_sp = stacks[all.size()].get();
      thread->context.uc_stack.ss_size = kStack;
      thread->context.uc_link = &scheduler.home;
      makecontext(&thread->context, thread_main, 0);
      scheduler.ready.push_back(thread.get());
      all.push_back(std::move(thread));
    }
    blocks.push_back(std::move(block));
  }
  while (scheduler.failure.empty() && scheduler.next < scheduler.ready.size()) {
    scheduler.running = take_next();
    swapcontext(&scheduler.home, &scheduler.running->context);
  }
  if (!scheduler.failure.empty()) return scheduler.failure;
  if (scheduler.finished < all.size()) return "some threads wait at a barrier that others never reach";
  return "";
}

}  // namespace

std::string run(const Launch& launch, const Options& options) {
  scheduler.launch = &launch;
  scheduler.options = options;
  scheduler.failure.clear();
  scheduler.waits = 0;
  scheduler.random.seed(options.seed);
  std::vector<Index> positions;
  for (unsigned y = 0; y < launch.grid.y; ++y)
    for (unsigned x = 0; x < launch.grid.x; ++x) positions.push_back({x, y, 0});
  if (options.seed != 0)
    for (size_t i = positions.size(); i > 1; --i) std::swap(positions[i - 1], positions[scheduler.random() % i]);
  if (launch.cooperative) return run_blocks(positions);
  for (const Index& position : positions) {
    std::string failure = run_blocks({position});
    if (!failure.empty()) return failure;
  }
  return "";
}

Thread& current() { return *scheduler.running; }
unsigned lane_of(const Thread& thread) { return thread.lane; }
Index& thread_index() { return current().thread; }
Index& block_index() { return current().block_position; }
Index& grid_size() { return const_cast<Index&>(scheduler.launch->grid); }
bool has_barrier(int barrier) { return barrier != scheduler.options.dropped_barrier; }

unsigned char* static_shared(size_t bytes) {
  unsigned char* memory = current().block->memory.get() + current().shared_used;
  current().shared_used += (bytes + 15) / 16 * 16;
  if (current().shared_used > kStaticShared) fail("more than 48 KiB of static shared memory");
  return memory;
}

unsigned char* dynamic_shared() { return current().block->memory.get() + kStaticShared; }
void block_barrier() { arrive(current().block->barrier, "__syncthreads"); }
void warp_barrier() { arrive(current().warp->barrier, "__syncwarp"); }

uint32_t exchange_lanes(uint32_t value, unsigned source) {
  Warp& warp = *current().warp;
  warp.lanes[current().lane] = value;
  arrive(warp.barrier, "a shuffle");
  const uint32_t result = warp.lanes[source];
  arrive(warp.barrier, "the end of a shuffle");
  return result;
}

void wait_a_moment() {
  if (++scheduler.waits > kPatience) fail("threads wait for others that never come");
  // Another priority each time, so that those whom it waits for get their turn, and another one afterwards, as it
  // would else go on as the one that let all others pass.
  Thread& waiting = current();
  waiting.priority = static_cast<long>(scheduler.random());
  scheduler.ready.push_back(&waiting);
  leave();
  waiting.priority = static_cast<long>(scheduler.random());
}

}  // namespace emulation
