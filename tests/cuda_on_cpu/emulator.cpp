// Runs the blocks of a launch one after the other, and the threads of a block as fibers: each runs until it
// has to wait for others. Never compiled with a sanitizer.
#include "emulator.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <numeric>
#include <random>
#include <unordered_map>
#include <vector>

namespace emulator {

Place place;

namespace {

// What sm_90 allows
constexpr size_t STATIC_SHARED = 48 << 10, SHARED = 227 << 10;
constexpr int DEVICES = 2;
// A small GPU, so that small images make its blocks do what large ones do
constexpr int PROCESSORS = 4;
// Frames are larger where a sanitizer surrounds variables
constexpr size_t STACK = 256 << 10;

struct Copy {
  char* to;
  const char* from;
  size_t bytes, zeros;
  const void* program;
};

enum class State { ready, at_barrier, in_warp, done };

struct Thread {
  void* context[5];  // of __builtin_setjmp
  State state;
  int line;          // of the barrier
  unsigned meeting;  // of the warp that it waits for
  uint3 index;
  std::vector<Copy> copies;
  std::vector<size_t> groups;  // copies before the end of each committed group
};

struct Warp {
  alignas(16) unsigned char brought[2][WARP][64];
  unsigned arrived, meetings, memory_meetings;
  const char* what;
};

struct Range {
  const char* begin;
  size_t bytes;
};

Thread threads[MOST_THREADS];
Warp warps[MOST_THREADS / WARP];
char* stacks = nullptr;
void* scheduler[5];
unsigned current = 0, count = 0, barriers = 0;
uint64_t block_number = 0;
void (*body)(void*) = nullptr;
void* body_context = nullptr;
const char* host_frame = nullptr;

std::vector<Range> shared_ranges;  // of the block
std::vector<unsigned char> dynamic_memory;
size_t dynamic_bytes = 0;

std::mt19937_64 random_numbers;
uint64_t seed = 0;
cudaError_t last_error = cudaSuccess;
std::string failure, report;
int device = 0;
int processor_shared = 228 << 10;              // bytes of a multiprocessor, as the runtime tells
std::unordered_map<const void*, int> granted;  // bytes of dynamic shared memory

// ---- fibers ----

// A fiber begins in a context of its own; from then on it is left and entered without the operating system.
__attribute__((noinline)) void jump(void** to) { __builtin_longjmp(to, 1); }

__attribute__((noinline)) void leave() {
  if (__builtin_setjmp(threads[current].context) == 0) jump(scheduler);
}

void run_thread() {
  body(body_context);
  Thread& thread = threads[current];
  if (!thread.copies.empty()) fail("a thread ends before its copies have arrived");
  thread.state = State::done;
  jump(scheduler);
}

ucontext_t host_context;

__attribute__((noinline)) void begin(unsigned i) {
  if (__builtin_setjmp(scheduler) != 0) return;
  ucontext_t fiber;
  getcontext(&fiber);
  fiber.uc_stack.ss_sp = stacks + i * STACK;
  fiber.uc_stack.ss_size = STACK;
  fiber.uc_link = &host_context;
  makecontext(&fiber, run_thread, 0);
  setcontext(&fiber);
}

__attribute__((noinline)) void resume(unsigned i) {
  if (__builtin_setjmp(scheduler) == 0) jump(threads[i].context);
}

void enter(unsigned i, bool first) {
  current = i;
  place.thread = threads[i].index;
  first ? begin(i) : resume(i);
}

// ---- blocks ----

void begin_block(const Configuration& configuration, uint64_t number) {
  const dim3 &grid = configuration.grid, &block = configuration.block;
  block_number = number;
  barriers = 0;
  shared_ranges.clear();
  // what nobody wrote is not a number
  dynamic_memory.assign(configuration.shared + 127, 0xff);
  dynamic_bytes = configuration.shared;
  if (dynamic_bytes)
    shared_ranges.push_back({reinterpret_cast<const char*>(dynamic_shared()), dynamic_bytes});
  place.block = {unsigned(number % grid.x), unsigned(number / grid.x % grid.y),
                 unsigned(number / grid.x / grid.y)};
  place.threads = block;
  place.blocks = grid;
  for (Warp& warp : warps) warp.arrived = warp.meetings = warp.memory_meetings = 0;
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = threads[i];
    thread.state = State::ready;
    thread.index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
    thread.copies.clear();
    thread.groups.clear();
  }
  meter_begin_block();
}

// Whole warps in any order, and their lanes in any order; as they are numbered without a seed.
void shuffle_order(std::vector<unsigned>& order) {
  if (!seed) return;
  std::shuffle(order.begin(), order.end(), random_numbers);
  unsigned rank[MOST_THREADS / WARP];
  for (unsigned& r : rank) r = unsigned(random_numbers());
  std::stable_sort(order.begin(), order.end(),
                   [&](unsigned a, unsigned b) { return rank[a / WARP] < rank[b / WARP]; });
}

void run_block() {
  std::vector<unsigned> order(count);
  std::iota(order.begin(), order.end(), 0u);
  for (bool first = true;; first = false) {
    shuffle_order(order);
    bool moved = false;
    for (const unsigned i : order) {
      if (threads[i].state != State::ready) continue;
      moved = true;
      enter(i, first);
      if (!failure.empty()) return;
    }
    if (moved) continue;
    unsigned done = 0, waiting = 0;
    for (unsigned i = 0; i < count; ++i) {
      done += threads[i].state == State::done;
      waiting += threads[i].state == State::at_barrier;
    }
    if (done == count) return;
    if (waiting != count) return fail("threads wait for others that ended, or that wait elsewhere");
    ++barriers;
    for (unsigned i = 0; i < count; ++i) {
      if (threads[i].line != threads[0].line)
        return fail("threads wait at different barriers: lines " + std::to_string(threads[0].line) + " and " +
                    std::to_string(threads[i].line));
      threads[i].state = State::ready;
    }
  }
}

std::string refusal(const void* function, const Configuration& configuration) {
  const dim3 &grid = configuration.grid, &block = configuration.block;
  if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    return "a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " +
           std::to_string(grid.z);
  const uint64_t size = uint64_t{block.x} * block.y * block.z;
  if (!size || size > MOST_THREADS || block.z > 64) return "a block of " + std::to_string(size) + " threads";
  const auto found = granted.find(function);
  const size_t most = found == granted.end() ? STATIC_SHARED : std::max(size_t(found->second), STATIC_SHARED);
  if (configuration.shared > most) return "dynamic shared memory that was not granted";
  return {};
}

extern "C" const char __ehdr_start[] __attribute__((visibility("hidden")));
extern "C" const char _end[] __attribute__((visibility("hidden")));

}  // namespace

Moment now() { return {block_number, current, barriers, warps[current / WARP].memory_meetings}; }
unsigned lane() { return current % WARP; }

Space space_of(const void* address) {
  const auto* const at = static_cast<const char*>(address);
  for (const Range& range : shared_ranges)
    if (at >= range.begin && at < range.begin + range.bytes) return Space::shared;
  const bool stack = at >= stacks && at < stacks + STACK * MOST_THREADS;
  // the arguments, where the host holds them
  const bool host = at >= host_frame && at < host_frame + (16 << 10);
  const bool constant = at >= __ehdr_start && at < _end;
  return stack || host || constant ? Space::own : Space::global;
}

void fail(const std::string& what) {
  if (failure.empty()) failure = what;
  last_error = cudaErrorLaunchFailure;
}

void barrier(int line) {
  threads[current].state = State::at_barrier;
  threads[current].line = line;
  leave();
}

Brought meet(unsigned mask, const char* what, const void* brought, size_t bytes, bool orders_memory) {
  const unsigned first = current / WARP * WARP, lanes = std::min(count - first, WARP);
  const unsigned all = lanes == WARP ? 0xffffffff : (1u << lanes) - 1;
  Warp& warp = warps[current / WARP];
  if ((mask & all) != all) fail(std::string(what) + " without some lanes of its warp");
  if (warp.arrived && std::strcmp(warp.what, what))
    fail(std::string("lanes meet in ") + warp.what + " and in " + what);
  warp.what = what;
  // two meetings by turns: a lane may bring to the next one before all have read this one's
  const unsigned meeting = warp.meetings;
  std::memcpy(warp.brought[meeting % 2][lane()], brought, bytes);
  warp.arrived |= 1u << lane();
  if (warp.arrived == all) {
    warp.arrived = 0;
    ++warp.meetings;
    warp.memory_meetings += orders_memory;
    for (unsigned i = first; i < first + lanes; ++i)
      if (threads[i].state == State::in_warp) threads[i].state = State::ready;
  } else {
    threads[current].state = State::in_warp;
    leave();
  }
  return warp.brought[meeting % 2];
}

void shared_variable(void* at, size_t bytes) {
  for (const Range& range : shared_ranges)
    if (range.begin == at) return;
  shared_ranges.push_back({static_cast<const char*>(at), bytes});
  std::memset(at, 0xff, bytes);
}

unsigned char* dynamic_shared() {
  const auto at = reinterpret_cast<uintptr_t>(dynamic_memory.data());
  return reinterpret_cast<unsigned char*>((at + 127) / 128 * 128);
}

void set_dynamic_shared(const void* function, int bytes) {
  if (bytes < 0 || size_t(bytes) > SHARED)
    last_error = cudaErrorInvalidValue;
  else
    granted[function] = bytes;
}

void copy_async(void* to, const void* from, size_t bytes, size_t zeros) {
  const auto apart = reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from);
  if ((bytes != 4 && bytes != 8 && bytes != 16) || apart % bytes)
    fail("an asynchronous copy that is not aligned");
  if (zeros != 0 && zeros != bytes) fail("an asynchronous copy that is zero in part");
  if (!zeros) meter_access(__builtin_return_address(0), from, bytes, false);
  threads[current].copies.push_back(
      {static_cast<char*>(to), static_cast<const char*>(from), bytes, zeros, __builtin_return_address(0)});
}

void commit_copies() { threads[current].groups.push_back(threads[current].copies.size()); }

void wait_for_copies(size_t groups) {
  Thread& thread = threads[current];
  if (thread.groups.size() <= groups) return;
  const size_t arrive = thread.groups[thread.groups.size() - 1 - groups];
  for (size_t i = 0; i < arrive; ++i) {
    const Copy& copy = thread.copies[i];
    meter_access(copy.program, copy.to, copy.bytes, true);
    copy.zeros ? std::memset(copy.to, 0, copy.bytes) : std::memcpy(copy.to, copy.from, copy.bytes);
  }
  thread.copies.erase(thread.copies.begin(), thread.copies.begin() + ptrdiff_t(arrive));
  thread.groups.erase(thread.groups.begin(), thread.groups.end() - ptrdiff_t(groups));
  for (size_t& end : thread.groups) end -= arrive;
}

void load_matrices(unsigned (&to)[4], const void* row) {
  if (reinterpret_cast<uintptr_t>(row) % 16) fail("ldmatrix: a row that is not aligned");
  if (space_of(row) != Space::shared) fail("ldmatrix: a row that is not in shared memory");
  meter_access(__builtin_return_address(0), row, 16, false);
  const Brought all = meet(0xffffffff, "ldmatrix", &row, sizeof row);
  for (unsigned i = 0; i < 4; ++i)
    std::memcpy(&to[i], of_lane<const char*>(all, 8 * i + lane() / 4) + lane() % 4 * 4, 4);
}

void multiply_matrices(float (&sums)[4], const float (&left)[4][2], const float (&right)[2][2]) {
  struct Operands {
    float left[4][2], right[2][2];
  } own;
  std::memcpy(own.left, left, sizeof left);
  std::memcpy(own.right, right, sizeof right);
  const Brought all = meet(0xffffffff, "mma", &own, sizeof own);
  const unsigned row = lane() / 4, column = lane() % 4 * 2;
  for (unsigned k = 0; k < 16; ++k) {
    // of the left the second eight rows are every other register, of both the second eight inputs the later
    // ones
    const unsigned pair = k % 8 / 2, late = k / 8, e = k % 2;
    const auto rows = of_lane<Operands>(all, row * 4 + pair);
    for (unsigned i = 0; i < 4; ++i)
      sums[i] +=
          rows.left[2 * late + i / 2][e] * of_lane<Operands>(all, (column + i % 2) * 4 + pair).right[late][e];
  }
}

__attribute__((noinline)) void launch(const char* kernel, const void* function,
                                      const Configuration& configuration, void (*run)(void*), void* context) {
  host_frame = static_cast<const char*>(__builtin_frame_address(0));
  failure = refusal(function, configuration);
  Totals totals;
  if (failure.empty()) {
    if (!stacks)
      stacks = static_cast<char*>(mmap(nullptr, STACK * MOST_THREADS, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    count = configuration.block.x * configuration.block.y * configuration.block.z;
    body = run;
    body_context = context;
    random_numbers.seed(seed);
    std::vector<uint64_t> order(uint64_t{configuration.grid.x} * configuration.grid.y * configuration.grid.z);
    std::iota(order.begin(), order.end(), uint64_t{0});
    if (seed) std::shuffle(order.begin(), order.end(), random_numbers);
    for (const uint64_t number : order) {
      begin_block(configuration, number);
      run_block();
      if (!failure.empty()) break;
      meter_end_block();
      totals.barriers = std::max(totals.barriers, barriers);
      size_t bytes = 0;
      for (const Range& range : shared_ranges) bytes += range.bytes;
      totals.static_shared = std::max(totals.static_shared, bytes - dynamic_bytes);
      if (totals.static_shared > STATIC_SHARED || bytes > SHARED) fail("more shared memory than there is");
    }
  }
  if (!failure.empty()) last_error = cudaErrorLaunchFailure;
  report += (report.empty() ? "" : ",\n") + meter_report(kernel, configuration, totals);
}

}  // namespace emulator

// ---- the runtime ----

cudaError_t cudaGetLastError() { return std::exchange(emulator::last_error, cudaSuccess); }
const char* cudaGetErrorString(cudaError_t error) {
  static std::string text;
  const char* const names[] = {"no error", "invalid value", "invalid device", "launch failure"};
  text = names[error] + (emulator::failure.empty() ? "" : ": " + emulator::failure);
  return text.c_str();
}
cudaError_t cudaGetDevice(int* to) {
  *to = emulator::device;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* to, cudaDeviceAttr attribute, int) {
  *to = attribute == cudaDevAttrMultiProcessorCount ? emulator::PROCESSORS : emulator::processor_shared;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= emulator::DEVICES) return cudaErrorInvalidDevice;
  emulator::device = device;
  return cudaSuccess;
}

// ---- for Python, by ctypes ----

extern "C" {
// The order of blocks, warps and lanes; 0: as they are numbered.
void emulator_seed(uint64_t seed) { emulator::seed = seed; }
int emulator_device() { return emulator::device; }
// Bytes of shared memory that a multiprocessor shall have, by what the runtime tells
void emulator_processor_shared(int bytes) { emulator::processor_shared = bytes; }
// The launches since this was last asked, as JSON.
const char* emulator_launches() {
  static std::string text;
  text = "[" + std::exchange(emulator::report, {}) + "]";
  return text.c_str();
}
}
