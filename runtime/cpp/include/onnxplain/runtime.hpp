// ONNX Runtime: its environment, the settings of every session here, and the memory that it keeps.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "onnxplain/system.hpp"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace onnxplain {

// What a caller changes in the settings of the sessions, such as another execution provider.
using Configure = std::function<void(Ort::SessionOptions&)>;

struct Runtime {
  Ort::Env env{ORT_LOGGING_LEVEL_FATAL, "onnxplain"};
  bool shared_arena = false;

  Runtime() {
    // One arena for all sessions, which grows by what is asked for and not by powers of two. A free block up to 64 KB
    // too large is handed out whole; ONNX Runtime's own limit of 128 MB wastes a tenth.
    try {
      const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
      const Ort::ArenaCfg arena(0, 1, -1, 65536);
      env.CreateAndRegisterAllocator(memory, arena);
      shared_arena = true;
    } catch (const Ort::Exception&) {  // this process has registered one already; ours are then the usual arenas
    }
  }
};

inline Runtime& runtime() {
  static Runtime made;
  return made;
}

// The settings of every session, chosen for little memory: half of the defaults', at the same speed.
inline Ort::SessionOptions session_options(std::optional<int> threads, const Configure& configure = {}) {
  Ort::SessionOptions options;
  options.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);  // what goes wrong comes as an exception
  options.SetIntraOpNumThreads(threads_of_a_run(threads));
  // Else a session's threads look for work for tens of milliseconds after its run, on cores that the next one needs.
  options.AddConfigEntry("session.force_spinning_stop", "1");
  // Else onnxruntime 1.32 rounds what enters a dense layer of quantised weights to 8 bits: up to 1 % of a score.
  options.AddConfigEntry("session.qdq_matmulnbits_accuracy_level", "1");
  if (runtime().shared_arena) {
    options.AddConfigEntry("session.use_env_allocators", "1");
    // A pattern is one block for a whole run, kept for each batch size that was ever run.
    options.DisableMemPattern();
  }
  if (configure) configure(options);
  return options;
}

// Returns to the system what the C library has freed but kept (glibc keeps up to 64 MB).
inline void give_back_freed() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

// Returns to the system what earlier runs left in the arena that all sessions share.
inline void give_back_memory() {
  // An Identity of one number: a run of it is the way to tell the arena to shrink.
  static const char nothing[] =
      "\x08\n\x12\x00:=\n\x10\n\x01x\x12\x01y\"\x08Identity\x12\x07nothingZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n"
      "\x02\x08\x01"
      "b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
      "B\x04\n\x00\x10\x14";
  static Ort::Session session(runtime().env, nothing, sizeof nothing - 1, session_options(1));
  Ort::RunOptions options;
  options.AddConfigEntry("memory.enable_memory_arena_shrinkage", "cpu:0");
  float number = 0;
  const std::int64_t shape = 1;
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const auto input = Ort::Value::CreateTensor<float>(memory, &number, 1, &shape, 1);
  const char *in = "x", *out = "y";
  session.Run(options, &in, &input, 1, &out, 1);
  give_back_freed();
}

}  // namespace onnxplain
