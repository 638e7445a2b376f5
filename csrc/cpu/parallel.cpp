#include "cpu/parallel.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#if !defined(_WIN32)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <dlfcn.h>
#include <link.h>

#include <cstring>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastllie {
namespace {

// Some tens of microseconds: the next call of a busy loop comes sooner than a sleeping thread would wake
constexpr int SPINS = 2000;
// Parts a thread: enough that one that comes late leaves its share to the others
constexpr int64_t PARTS_PER_THREAD = 4;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

struct Job {
  const std::function<void(int64_t, int64_t)>& body;
  int64_t units, parts;
  std::atomic<int64_t> next{0};

  void work() {
    for (int64_t i = next++; i < parts; i = next++) body(units * i / parts, units * (i + 1) / parts);
  }
};

class Pool {
 public:
  // Whether the job was done; false where another call holds the pool.
  bool run(Job& job, int threads) {
    const std::unique_lock<std::mutex> alone(one_job_, std::try_to_lock);
    if (!alone) return false;
    grow(threads - 1);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      places_ = threads - 1;
      ++generation_;
    }
    wake_.notify_all();
    job.work();
    std::unique_lock<std::mutex> lock(mutex_);
    job_ = nullptr;  // nobody else comes in
    for (int i = 0; i < SPINS && active_ > 0; ++i) {
      lock.unlock();
      pause();
      lock.lock();
    }
    done_.wait(lock, [this] { return active_ == 0; });
    return true;
  }

 private:
  void grow(int wanted) {
    while (workers_ < wanted) {
      try {
        std::thread([this] { serve(); }).detach();
      } catch (const std::system_error&) {
        return;  // the system has no thread left: those that are there do all the work
      }
      ++workers_;
    }
  }

  void serve() {
    uint64_t seen = 0;
    for (;;) {
      for (int i = 0; i < SPINS && generation_ == seen; ++i) pause();
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return generation_ != seen; });
      seen = generation_;
      if (!job_ || places_ == 0) continue;
      Job* const job = job_;
      --places_;
      ++active_;
      lock.unlock();
      job->work();
      lock.lock();
      if (--active_ == 0) done_.notify_one();
    }
  }

  std::mutex one_job_, mutex_;
  std::condition_variable wake_, done_;
  std::atomic<uint64_t> generation_{0};
  Job* job_ = nullptr;
  int places_ = 0, active_ = 0, workers_ = 0;
};

// Never destroyed: its threads wait until the process ends. A forked child has none of them, and starts anew.
std::atomic<Pool*> pool{nullptr};
std::atomic<bool> forked{false};
#if !defined(_WIN32)
// when the module is loaded: a fork may come before the first call
const int watching = pthread_atfork(nullptr, nullptr, [] {
  pool = nullptr;
  forked = true;
});
#endif

Pool& shared_pool() {
  Pool* existing = pool;
  if (existing) return *existing;
  Pool* const fresh = new Pool;
  if (pool.compare_exchange_strong(existing, fresh)) return *fresh;
  delete fresh;
  return *existing;
}

// GNU OpenMP's entry points, in the copy of it that torch brings.
struct OpenMP {
  void (*parallel)(void (*function)(void*), void* argument, unsigned threads, unsigned flags) = nullptr;
  int (*max_threads)() = nullptr;

  OpenMP() {
#if defined(__linux__)
    const char* path = nullptr;
    dl_iterate_phdr(
        [](dl_phdr_info* library, size_t, void* found) {
          const char* const name = library->dlpi_name;
          if (!std::strstr(name, "torch") || !std::strstr(name, "libgomp")) return 0;
          *static_cast<const char**>(found) = name;
          return 1;
        },
        &path);
    // it is loaded already: this finds it, and loads nothing
    void* const library = path ? dlopen(path, RTLD_LAZY | RTLD_NOLOAD) : nullptr;
    if (!library) return;
    parallel = reinterpret_cast<decltype(parallel)>(dlsym(library, "GOMP_parallel"));
    max_threads = reinterpret_cast<decltype(max_threads)>(dlsym(library, "omp_get_max_threads"));
#endif
  }
};

// Torch's threads stay awake for some milliseconds after each of its operators: they start at once, and would
// take the cores from threads of our own. Not in a forked child, where they are gone and OpenMP waits for
// them.
bool run_on_torch_threads(Job& job, int threads) {
  static const OpenMP openmp;
  if (!openmp.parallel || !openmp.max_threads || forked) return false;
  // never fewer than torch asks for: OpenMP ends the others, and starts them anew for the next operator
  const int team = std::max(threads, openmp.max_threads());
  openmp.parallel([](void* argument) { static_cast<Job*>(argument)->work(); }, &job, unsigned(team), 0);
  return true;
}

}  // namespace

void parallel(int64_t units, int threads, const std::function<void(int64_t, int64_t)>& body) {
  if (units <= 0) return;
  if (threads <= 1 || units == 1) return body(0, units);
  Job job{body, units, std::min(units, threads * PARTS_PER_THREAD)};
  if (run_on_torch_threads(job, threads)) return;
  // a second call at the same time has its own thread, and the cores are busy with the first
  if (!shared_pool().run(job, threads)) job.work();
}

}  // namespace fastllie
