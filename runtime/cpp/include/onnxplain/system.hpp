// What the system lets this process have: memory and processors, within the limits of its control group.
#pragma once

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <functional>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace onnxplain {

constexpr std::int64_t FREE_WHERE_UNKNOWN = 2'000'000'000;
// Version 1 of control groups writes a number near 2^63 where no memory limit is set, and -1 for processors.
constexpr std::int64_t NO_LIMIT = std::int64_t{1} << 60;

namespace system_of {

inline std::optional<std::int64_t> number_in(const std::string& file) {
  std::ifstream stream(file);
  std::int64_t number = 0;
  return stream >> number ? std::optional(number) : std::nullopt;  // "max" in version 2 is none
}

// The number behind a name in a file of names and numbers, "MemAvailable:  123 kB".
inline std::optional<std::int64_t> named_in(const std::string& file, const std::vector<std::string>& names) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    std::istringstream words(line);
    std::string name;
    std::int64_t number = 0;
    if (words >> name >> number && std::find(names.begin(), names.end(), name) != names.end()) return number;
  }
  return std::nullopt;
}

// Room under the memory limit of a control group; none where none is set.
inline std::optional<std::int64_t> room_in(const std::string& folder, bool unified) {
  const auto most = number_in(folder + (unified ? "/memory.max" : "/memory.limit_in_bytes"));
  const auto charged = number_in(folder + (unified ? "/memory.current" : "/memory.usage_in_bytes"));
  if (!most || !charged || *most >= NO_LIMIT) return std::nullopt;
  // Less the file cache that the kernel drops first.
  const auto cached = named_in(folder + "/memory.stat", {"inactive_file", "total_inactive_file"});
  return std::max<std::int64_t>(0, *most - *charged + cached.value_or(0));
}

// The processors whose time a control group may take, in whole ones; none where no limit is set.
inline std::optional<std::int64_t> share_in(const std::string& folder, bool unified) {
  std::int64_t quota = 0, period = 0;
  if (unified) {
    std::ifstream stream(folder + "/cpu.max");
    if (!(stream >> quota >> period)) return std::nullopt;  // "max 100000"
  } else {
    quota = number_in(folder + "/cpu.cfs_quota_us").value_or(-1);
    period = number_in(folder + "/cpu.cfs_period_us").value_or(0);
  }
  return quota > 0 && period > 0 ? std::optional(quota / period) : std::nullopt;
}

using Limit = std::function<std::optional<std::int64_t>(const std::string& folder, bool unified)>;

// The least limit among this process's control groups of a controller, up to the root; none where none is set.
inline std::optional<std::int64_t> least_of_groups(const std::string& controller, const Limit& limit) {
  const std::string root = "/sys/fs/cgroup", one = root + "/" + controller;
  // Inside a container the group's own path isn't mounted, and its limit is at the root.
  std::vector<std::optional<std::int64_t>> limits = {limit(root, true), limit(one, false)};
  std::ifstream stream("/proc/self/cgroup");
  for (std::string line; std::getline(stream, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool unified = controllers.empty();
    if (!unified && ("," + controllers + ",").find("," + controller + ",") == std::string::npos) continue;
    for (std::string path = line.substr(second + 1); path.size() > 1; path = path.substr(0, path.rfind('/')))
      limits.push_back(limit((unified ? root : one) + path, unified));
  }
  std::optional<std::int64_t> least;
  for (const auto& each : limits)
    if (each && (!least || *each < *least)) least = each;
  return least;
}

}  // namespace system_of

// Bytes that this process may still take: what the system has available, within the limit of its control group.
inline std::int64_t free_memory() {
  const auto available = system_of::named_in("/proc/meminfo", {"MemAvailable:"});
  const auto room = system_of::least_of_groups("memory", system_of::room_in);
  if (!available) return room.value_or(FREE_WHERE_UNKNOWN);
  return std::min(*available * 1024, room.value_or(*available * 1024));
}

// The processors of the machine.
inline int processors() {
#if defined(__linux__)  // where the standard library may count those that the process is bound to
  return std::max(1, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
#else
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
#endif
}

// The processors that this process may keep busy, at least 1: less than the machine has where it is bound to some of
// them, or its control group to a share of their time. A container with `--cpus 2.5` has two.
inline int cores() {
  int allowed = processors();
#if defined(__linux__)
  cpu_set_t bound;
  CPU_ZERO(&bound);
  if (sched_getaffinity(0, sizeof bound, &bound) == 0) allowed = std::min(allowed, CPU_COUNT(&bound));
#endif
  const auto share = system_of::least_of_groups("cpu", system_of::share_in);
  return std::max(1, static_cast<int>(std::min<std::int64_t>(allowed, share.value_or(allowed))));
}

// Threads for ONNX Runtime: as many as asked for, 0 for its own choice, which is one for each core of the machine.
// Where this process may use fewer, threads beyond these would only wait for one another.
inline int threads_of_a_run(std::optional<int> asked) {
  if (asked) return *asked;
  const int there = cores();
  return there < processors() ? there : 0;
}

}  // namespace onnxplain
