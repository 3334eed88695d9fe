// How much longer explain takes than the bare runs of its graphs with the same inputs.
//
//   overhead BUNDLE ROUNDS THREADS    prints a line of JSON for each method: seconds of both, round by round
//
// Both take turns. The threads of one session still spin for some milliseconds after a run and would take time from the
// next contender's, so each pauses and runs once untimed before it is timed.
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <iostream>
#include <onnxplain/onnxplain.hpp>
#include <string>
#include <thread>
#include <vector>

namespace {

using onnxplain::Array;
using onnxplain::Feeds;
using onnxplain::Json;

constexpr std::int64_t ROWS = 8, STEPS = 24;

// Seconds by the clock on the wall, and of all threads' work, which a busy machine disturbs less.
std::pair<double, double> seconds_of(const std::function<void()>& act) {
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  act();
  const auto before = std::chrono::steady_clock::now();
  const std::clock_t worked = std::clock();
  act();
  const double work = static_cast<double>(std::clock() - worked) / CLOCKS_PER_SEC;
  return {std::chrono::duration<double>(std::chrono::steady_clock::now() - before).count(), work};
}

// A graph with inputs and outputs that stand ready: what remains is Run.
class Bare {
 public:
  Bare(const onnxplain::Bundle& bundle, const std::string& name, std::vector<std::string> outputs, int threads)
      : graph_(bundle.graphs.at(name)),
        outputs_(std::move(outputs)),
        session_(onnxplain::runtime().env, bundle.file(graph_).c_str(), onnxplain::session_options(threads)) {}

  void prepare(const Feeds& feeds, const onnxplain::Chunk& chunk) {
    runs_.push_back(onnxplain::inputs_of(graph_, feeds, chunk));
  }

  void run() {
    std::vector<const char*> taken, given;
    for (const auto& entry : graph_.inputs) taken.push_back(entry.name.c_str());
    for (const auto& name : outputs_) given.push_back(name.c_str());
    for (const auto& inputs : runs_) {
      std::vector<const OrtValue*> values;
      for (const auto& input : inputs) values.push_back(input.value);
      std::vector<OrtValue*> found(given.size(), nullptr);
      Ort::ThrowOnError(Ort::GetApi().Run(session_, nullptr, taken.data(), values.data(), values.size(), given.data(),
                                          given.size(), found.data()));
      for (OrtValue* each : found) Ort::GetApi().ReleaseValue(each);
    }
  }

 private:
  const onnxplain::Graph& graph_;
  std::vector<std::string> outputs_;
  Ort::Session session_;
  std::vector<std::vector<onnxplain::Tensor>> runs_;
};

struct Contenders {
  std::string method;
  std::function<void()> explain, bare;
};

Feeds feeds_for(const Array<float>& image, const std::string& method, std::int64_t target) {
  Feeds feeds;
  feeds["image"] = onnxplain::feed_of(image, true);
  feeds["target"] = {onnxplain::data_of(Array<std::int64_t>({1, 1}, {target})), true, false};
  feeds["baseline"] = onnxplain::feed_of(Array<float>({1, 1, 1, 1}));
  feeds["sigma"] = onnxplain::feed_of(Array<float>({1}, {0.3f}), true);
  feeds["seed"] = {onnxplain::data_of(Array<std::int64_t>({1}, {0}))};
  onnxplain::Parameters parameters;
  parameters.set("samples", STEPS);
  parameters.set("steps", STEPS);
  const auto plan = method == "smoothgrad" ? "draws" : method == "integrated_gradients" ? "points" : "single";
  Array<float> steps = onnxplain::find_plan(plan).rule(parameters, 0, 0);
  steps.shape.insert(steps.shape.begin(), 1);
  feeds["steps"] = onnxplain::feed_of(std::move(steps), false, true);
  return feeds;
}

// The runs that a method makes: of the gradient one that tells the scores, of the others one for the scores before.
std::vector<std::shared_ptr<Bare>> runs_of(const onnxplain::Bundle& bundle, const Array<float>& image,
                                           const std::string& method, int threads) {
  const Feeds feeds = feeds_for(image, method, method == "gradient" ? -1 : 0);
  if (method == "gradient") {
    auto gradient =
        std::make_shared<Bare>(bundle, "gradient", std::vector<std::string>{"total", "norm", "scores"}, threads);
    gradient->prepare(feeds, onnxplain::chunks(1, 1, ROWS)[0]);
    return {gradient};
  }
  auto forward = std::make_shared<Bare>(bundle, "forward", std::vector<std::string>{"scores"}, threads);
  forward->prepare(feeds, onnxplain::chunks(1, 1, ROWS)[0]);
  const auto outputs =
      method == "smoothgrad" ? std::vector<std::string>{"total", "norm"} : std::vector<std::string>{"total"};
  auto steps = std::make_shared<Bare>(bundle, method == "smoothgrad" ? "noise" : "path", outputs, threads);
  for (const auto& chunk : onnxplain::chunks(1, STEPS, ROWS)) steps->prepare(feeds, chunk);
  return {forward, steps};
}

}  // namespace

int main(int count, char** words) {
  if (count != 4) return 2;
  const int rounds = std::atoi(words[2]), threads = std::atoi(words[3]);
  onnxplain::Settings settings;
  settings.threads = threads;
  settings.rows = ROWS;
  const onnxplain::Explainer explainer(words[1], settings);
  Array<float> image(onnxplain::sizes_of(explainer.bundle().image().shape, 0));
  const Array<float> noise = onnxplain::normal(0, {0}, image.size());
  image.values = noise.values;
  for (const std::string method : {"gradient", "smoothgrad", "integrated_gradients"}) {
    const auto bare = runs_of(explainer.bundle(), image, method, threads);
    onnxplain::Options options(method);
    if (method == "smoothgrad") options.with("samples", STEPS);
    if (method == "integrated_gradients") options.with("steps", STEPS);
    Json times = {{"method", method},
                  {"explain", Json::array()},
                  {"bare", Json::array()},
                  {"explain_work", Json::array()},
                  {"bare_work", Json::array()}};
    const onnxplain::Images images(image);
    for (int round = 0; round < rounds; ++round) {
      const auto both = {std::string("explain"), std::string("bare")};
      for (const auto& contender : both) {
        const auto [wall, work] = seconds_of([&] {
          if (contender == "explain") {
            explainer.explain(images, options);
          } else {
            for (const auto& each : bare) each->run();
          }
        });
        times[contender].push_back(wall);
        times[contender + "_work"].push_back(work);
      }
    }
    std::cout << times.dump() << std::endl;
  }
}
