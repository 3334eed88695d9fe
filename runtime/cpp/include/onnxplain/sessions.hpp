// ONNX Runtime sessions on a bundle's graphs: opened when first needed, few at a time, shared between threads.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "onnxplain/bundle.hpp"
#include "onnxplain/error.hpp"
#include "onnxplain/feed.hpp"
#include "onnxplain/runtime.hpp"

namespace onnxplain {

// Forward and the graphs of two methods; each holds its own copy of what ONNX Runtime repacks for its kernels.
constexpr std::size_t MOST_OPEN = 3;
// Runs at a size that memory was found for, after which twice that size is tried again.
constexpr int GROW_AFTER = 16;

// A run needed more memory than there is; one of fewer rows may succeed.
struct MemoryRanOut : ModelError {
  using ModelError::ModelError;
};

// Whether an error of a run means that memory couldn't be had, and nothing else.
inline bool ran_out(const Ort::Exception& error) {
  switch (error.GetOrtErrorCode()) {  // these say what is wrong with the model or its inputs
    case ORT_FAIL:
    case ORT_RUNTIME_EXCEPTION:
      break;
    default:
      return false;
  }
  const std::string text = error.what();
  for (const char* phrase :
       {"Failed to allocate memory for requested buffer of size", "is smaller than requested", "std::bad_alloc",
        "bad allocation", "out of memory", "_ALLOC_FAILED", "cudaErrorMemoryAllocation"})
    if (text.find(phrase) != std::string::npos) return true;
  return false;
}

class Sessions {
 public:
  Sessions(std::shared_ptr<const Bundle> bundle, std::optional<int> threads, Configure configure)
      : bundle_(std::move(bundle)), threads_(threads), configure_(std::move(configure)) {}

  // Runs a graph once; ModelError where it fails on these inputs, MemoryRanOut if memory is what was missing.
  std::vector<Ort::Value> run(const Graph& graph, const std::vector<std::string>& outputs,
                              const std::vector<Tensor>& inputs) {
    const std::shared_ptr<Ort::Session> session = opened(graph);
    turn_to(graph);
    std::vector<const char*> taken, given;
    std::vector<OrtValue*> values;
    for (const GraphInput& entry : graph.inputs) taken.push_back(entry.name.c_str());
    for (const std::string& name : outputs) given.push_back(name.c_str());
    std::vector<const OrtValue*> feeds;
    for (const Tensor& input : inputs) feeds.push_back(input.value);
    std::vector<OrtValue*> found(outputs.size(), nullptr);
    try {
      Ort::ThrowOnError(Ort::GetApi().Run(*session, nullptr, taken.data(), feeds.data(), feeds.size(), given.data(),
                                          given.size(), found.data()));
    } catch (const Ort::Exception& error) {
      if (ran_out(error)) throw MemoryRanOut("memory ran out in a run of " + graph.file);
      throw ModelError("the graph " + graph.file + " failed: " + first_line(error.what()));
    }
    std::vector<Ort::Value> results;
    for (OrtValue* each : found) results.emplace_back(each);
    return results;
  }

  // Says what the next runs are of: if another graph or size than the last, whose memory won't be reused then. Under a
  // bound that goes for every further graph that they take, too.
  void begin(const Graph& graph, std::int64_t images, const Memory& memory) {
    const auto now = std::make_tuple(graph.name, images, shown(memory));
    const std::lock_guard<std::mutex> lock(mutex_);
    if (work_ && *work_ != now && runtime().shared_arena) give_back_memory();
    work_ = now;
    running_ = graph.name;
    tidy_ = !memory.none();
  }

  // The most rows of a run for which there was memory of late; none where it never ran out.
  std::optional<std::int64_t> most_rows(const Graph& graph) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = limits_.find(graph.name);
    return found == limits_.end() ? std::nullopt : std::optional(found->second.first);
  }
  // Takes note that memory ran out in a run of so many rows: half of them is the most for now.
  void too_many(const Graph& graph, std::int64_t rows) {
    const std::lock_guard<std::mutex> lock(mutex_);
    limits_[graph.name] = {std::max<std::int64_t>(1, rows / 2), 0};
    if (runtime().shared_arena) give_back_memory();
  }
  // Takes note that there was memory for a run of so many rows; after several at the limit, that is doubled.
  void enough(const Graph& graph, std::int64_t rows) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = limits_.find(graph.name);
    if (found == limits_.end() || 2 * rows <= found->second.first) return;
    if (++found->second.second == GROW_AFTER) found->second = {2 * found->second.first, 0};
  }

 private:
  void turn_to(const Graph& graph) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (tidy_ && running_ != graph.name && runtime().shared_arena) give_back_memory();
    running_ = graph.name;
  }

  std::shared_ptr<Ort::Session> opened(const Graph& graph) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = std::find_if(open_.begin(), open_.end(), [&](const auto& e) { return e.first == graph.name; });
    if (found != open_.end()) {
      open_.splice(open_.end(), open_, found);
    } else {
      open_.emplace_back(graph.name, created(graph));
      if (open_.size() > MOST_OPEN) open_.pop_front();  // a thread that is running it holds its own reference
    }
    return open_.back().second;
  }

  std::shared_ptr<Ort::Session> created(const Graph& graph) const {
    const std::filesystem::path file = bundle_->file(graph);
    std::shared_ptr<Ort::Session> session;
    try {
      session = std::make_shared<Ort::Session>(runtime().env, file.c_str(), session_options(threads_, configure_));
    } catch (const Ort::Exception& error) {
      throw BundleError("onnxruntime " + Ort::GetVersionString() + " can't open " + file.string() + ": " +
                        first_line(error.what()));
    }
    give_back_freed();  // opening leaves a quarter of what it took behind
    std::set<std::string> described, there, differing;
    for (const GraphInput& entry : graph.inputs) described.insert(entry.name);
    Ort::AllocatorWithDefaultOptions allocator;
    for (std::size_t i = 0; i < session->GetInputCount(); ++i)
      there.insert(session->GetInputNameAllocated(i, allocator).get());
    std::set_symmetric_difference(described.begin(), described.end(), there.begin(), there.end(),
                                  std::inserter(differing, differing.end()));
    if (!differing.empty())
      throw BundleError(file.string() + " and explainer.json disagree about the inputs " +
                        joined(std::vector<std::string>(differing.begin(), differing.end()), ", "));
    return session;
  }

  std::shared_ptr<const Bundle> bundle_;
  std::optional<int> threads_;
  Configure configure_;
  std::list<std::pair<std::string, std::shared_ptr<Ort::Session>>> open_;
  std::mutex mutex_;
  std::optional<std::tuple<std::string, std::int64_t, std::string>> work_;
  std::string running_;
  bool tidy_ = false;
  std::map<std::string, std::pair<std::int64_t, int>> limits_;  // most rows, and how many runs of late of that size
};

}  // namespace onnxplain
