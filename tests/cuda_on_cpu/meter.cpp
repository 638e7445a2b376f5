// Counts what a GPU's memory would have to do for a launch, and finds races. The kernels are compiled as for
// ThreadSanitizer, whose calls at every access come here instead: a warp's request is what its lanes do at
// one place of the program for the same time. Branches are seen by the calls at every basic block.
#include "emulator.h"

#include <map>
#include <set>
#include <unordered_map>
#include <vector>

namespace emulator {

namespace {

constexpr size_t SECTOR = 32, BANKS = 32, WORD = 4;

struct Event {
  const void* program;
  uintptr_t address;  // 0: a basic block begins
  unsigned bytes;
  Space space;
  bool write;
};

// A place of the program in all of a launch: how many requests, what they cost (sectors of global memory,
// turns of shared memory), the least that it could be, and bytes that lanes asked for.
struct Site {
  Space space;
  bool write;
  uint64_t requests = 0, cost = 0, ideal = 0, bytes = 0;
};

// Who touched a byte. Two readers, of different warps if possible, stand for all.
struct Touch {
  bool valid = false;
  Moment at;
};
struct History {
  Touch writer, reader, other_reader;
  bool others_in_warp = false;
};

bool on = false;
std::vector<Event> events[MOST_THREADS];
std::map<const void*, Site> sites;
uint64_t branches = 0, divergent = 0;
std::unordered_map<uintptr_t, History> global_history, shared_history;
std::set<const void*> races;
uint64_t misaligned = 0;

bool unordered(const Touch& before, const Moment& moment) {
  if (!before.valid) return false;
  if (before.at.block != moment.block) return true;
  if (before.at.thread == moment.thread || before.at.barriers != moment.barriers) return false;
  const bool same_warp = before.at.thread / WARP == moment.thread / WARP;
  return !(same_warp && before.at.warp_meetings != moment.warp_meetings);
}

void look_for_races(const void* program, uintptr_t address, size_t bytes, Space space, bool write) {
  const Moment moment = now();
  auto& histories = space == Space::shared ? shared_history : global_history;
  for (uintptr_t byte = address; byte < address + bytes; ++byte) {
    History& history = histories[byte];
    Touch& reader = history.reader;
    if (unordered(history.writer, moment)) races.insert(program);
    const bool same_time = reader.valid && reader.at.block == moment.block &&
                           reader.at.barriers == moment.barriers &&
                           reader.at.warp_meetings == moment.warp_meetings;
    if (write) {
      if (unordered(reader, moment) || unordered(history.other_reader, moment) ||
          (history.others_in_warp && same_time))
        races.insert(program);
      history.writer = {true, moment};
      continue;
    }
    const bool same_warp = reader.valid && reader.at.thread / WARP == moment.thread / WARP;
    if (reader.valid && (!same_warp || reader.at.block != moment.block)) history.other_reader = reader;
    history.others_in_warp =
        same_time && same_warp && (history.others_in_warp || reader.at.thread != moment.thread);
    reader = {true, moment};
  }
}

struct Lanes {
  unsigned bytes = 0;
  uintptr_t addresses[WARP] = {};
};

// How many different values there are; sorts them.
size_t different(std::vector<uintptr_t>& values) {
  std::sort(values.begin(), values.end());
  return size_t(std::unique(values.begin(), values.end()) - values.begin());
}

void count_global(Site& site, const Lanes& lanes) {
  std::vector<uintptr_t> sectors, distinct;
  for (const uintptr_t address : lanes.addresses) {
    if (!address) continue;
    distinct.push_back(address);
    for (uintptr_t at = address / SECTOR; at <= (address + lanes.bytes - 1) / SECTOR; ++at)
      sectors.push_back(at);
  }
  site.cost += different(sectors);
  site.ideal += (different(distinct) * lanes.bytes + SECTOR - 1) / SECTOR;
}

// Words of 8 and 16 bytes go by half and by quarter warps.
void count_shared(Site& site, const Lanes& lanes) {
  const unsigned words = std::max(1u, lanes.bytes / unsigned(WORD)), together = WARP / words;
  for (unsigned first = 0; first < WARP; first += together) {
    std::vector<uintptr_t> asked;
    for (unsigned lane = first; lane < first + together; ++lane)
      for (unsigned i = 0; lanes.addresses[lane] && i < words; ++i)
        asked.push_back(lanes.addresses[lane] / WORD + i);
    const size_t count = different(asked);
    unsigned banks[BANKS] = {}, most = 0;
    for (size_t i = 0; i < count; ++i) most = std::max(most, ++banks[asked[i] % BANKS]);
    site.cost += most;
    site.ideal += (count + BANKS - 1) / BANKS;
  }
}

// A place of the program, and how often a lane had been there before.
struct Turn {
  const void* program;
  unsigned visit;
  bool operator==(const Turn& other) const { return program == other.program && visit == other.visit; }
};
struct Hash {
  size_t operator()(const Turn& turn) const {
    return (reinterpret_cast<uintptr_t>(turn.program) * 0x9e3779b97f4a7c15u) ^
           (turn.visit * 0xc2b2ae3d27d4eb4fu);
  }
};
// Where the lanes of a warp go on from a basic block
struct Ways {
  const void* next;
  bool several;
};

void count_warp(unsigned first) {
  std::unordered_map<Turn, Lanes, Hash> requests;
  std::unordered_map<Turn, Ways, Hash> ways;
  for (unsigned lane = 0; lane < WARP; ++lane) {
    std::unordered_map<const void*, unsigned> visits;
    Turn block{nullptr, 0};
    const auto go_on = [&](const void* next) {
      if (!block.program) return;
      Ways& found = ways.try_emplace(block, Ways{next, false}).first->second;
      found.several = found.several || found.next != next;
    };
    for (const Event& event : events[first + lane]) {
      const Turn turn{event.program, visits[event.program]++};
      if (!event.address) {
        go_on(event.program);
        block = turn;
        continue;
      }
      Site& site = sites.try_emplace(event.program, Site{event.space, event.write}).first->second;
      site.bytes += event.bytes;
      Lanes& lanes = requests[turn];
      lanes.bytes = event.bytes;
      lanes.addresses[lane] = event.address;
    }
    go_on(nullptr);
  }
  for (const auto& [turn, lanes] : requests) {
    Site& site = sites.at(turn.program);
    ++site.requests;
    site.space == Space::shared ? count_shared(site, lanes) : count_global(site, lanes);
  }
  branches += ways.size();
  for (const auto& [turn, found] : ways) divergent += found.several;
}

std::string number(const char* name, uint64_t value) {
  return std::string(", \"") + name + "\": " + std::to_string(value);
}

extern "C" const char __ehdr_start[] __attribute__((visibility("hidden")));
uint64_t offset(const void* program) { return uint64_t(static_cast<const char*>(program) - __ehdr_start); }

}  // namespace

void meter_access(const void* program, const void* address, size_t bytes, bool write) {
  if (!on) return;
  const Space space = space_of(address);
  if (space == Space::own) return;
  const auto at = reinterpret_cast<uintptr_t>(address);
  misaligned += at % bytes != 0;
  look_for_races(program, at, bytes, space, write);
  // one place may both read and write: a copy of a structure
  const void* const key = static_cast<const char*>(program) - (write ? 1 : 0);
  events[now().thread].push_back({key, at, unsigned(bytes), space, write});
}

void meter_begin_block() {
  shared_history.clear();
  for (auto& list : events) list.clear();
}

void meter_end_block() {
  if (!on) return;
  for (unsigned first = 0; first < MOST_THREADS; first += WARP) count_warp(first);
}

std::string meter_report(const char* kernel, const Configuration& configuration, const Totals& totals) {
  const dim3 &grid = configuration.grid, &block = configuration.block;
  std::string text = std::string("{\"kernel\": \"") + kernel + "\"";
  text += number("blocks", uint64_t{grid.x} * grid.y * grid.z);
  text += number("threads", uint64_t{block.x} * block.y * block.z);
  text += number("static_shared", totals.static_shared) + number("dynamic_shared", configuration.shared);
  text += number("barriers", totals.barriers);
  text += number("stream", reinterpret_cast<uintptr_t>(configuration.stream));
  text += number("branches", branches) + number("divergent", divergent) + number("misaligned", misaligned);
  text += ", \"races\": [";
  for (const void* const race : races)
    text += (race == *races.begin() ? "" : ", ") + std::to_string(offset(race));
  text += "], \"sites\": [";
  bool first = true;
  for (const auto& [program, site] : sites) {
    text += std::string(first ? "" : ", ") + "{\"space\": \"" +
            (site.space == Space::shared ? "shared" : "global");
    text +=
        std::string("\", \"write\": ") + (site.write ? "true" : "false") + number("program", offset(program));
    text += number("requests", site.requests) + number("cost", site.cost) + number("ideal", site.ideal);
    text += number("bytes", site.bytes) + "}";
    first = false;
  }
  sites.clear();
  races.clear();
  global_history.clear();
  branches = divergent = misaligned = 0;
  return text + "]}";
}

}  // namespace emulator

// ---- the compiler's calls ----

#define ACCESS(bytes)                                                      \
  void __tsan_read##bytes(const void* at) {                                \
    emulator::meter_access(__builtin_return_address(0), at, bytes, false); \
  }                                                                        \
  void __tsan_write##bytes(void* at) { emulator::meter_access(__builtin_return_address(0), at, bytes, true); }

extern "C" {
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_init() {}
void __tsan_func_entry(const void*) {}
void __tsan_func_exit() {}
// Of structures, which a GPU reads and writes in words
void __tsan_read_range(const void* at, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 4)
    emulator::meter_access(__builtin_return_address(0), static_cast<const char*>(at) + i, 4, false);
}
void __tsan_write_range(void* at, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 4)
    emulator::meter_access(__builtin_return_address(0), static_cast<const char*>(at) + i, 4, true);
}
void __sanitizer_cov_trace_pc() {
  if (emulator::on)
    emulator::events[emulator::now().thread].push_back(
        {__builtin_return_address(0), 0, 0, emulator::Space::own, false});
}

// For Python, by ctypes: whether what follows is counted
void emulator_meter(int on) { emulator::on = on != 0; }
}
