// Explains what tests ask for: `driver FILE`, a JSON list of jobs.
//
// For each a line of JSON is printed, and arrays are written beside `out`, raw.
#include <chrono>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <string>

#include "jobs.hpp"

namespace {

template <class T>
Json written(const Array<T>& array, const std::string& file) {
  std::ofstream(file, std::ios::binary)
      .write(reinterpret_cast<const char*>(array.values.data()),
             static_cast<std::streamsize>(array.values.size() * sizeof(T)));
  return {{"file", file}, {"shape", array.shape}};
}

onnxplain::Images images_in(const Json& data) {
  if (data.is_object()) return array_in<float>(data);
  std::vector<onnxplain::Picture> pictures;
  for (const Json& each : data) {
    const auto shape = each.at("shape").get<onnxplain::Shape>();
    if (each.value("dtype", "uint8") == "uint16") {
      pictures.emplace_back(shape[0], shape[1], shape[2], array_in<std::uint16_t>(each).values);
    } else {
      pictures.emplace_back(shape[0], shape[1], shape[2], array_in<std::uint8_t>(each).values);
    }
  }
  return pictures;
}

std::shared_ptr<onnxplain::Explainer> explainer_of(const Json& job) {
  static std::map<std::string, std::shared_ptr<onnxplain::Explainer>> known;
  onnxplain::Settings settings;
  if (job.contains("threads")) settings.threads = job.at("threads").get<int>();
  if (job.contains("rows")) settings.rows = job.at("rows").get<std::int64_t>();
  settings.verify = job.value("verify", true);
  const auto bundle = job.at("bundle").get<std::string>();
  auto& explainer = known[bundle + job.value("threads", Json()).dump() + job.value("rows", Json()).dump()];
  if (!explainer) explainer = std::make_shared<onnxplain::Explainer>(bundle, settings);
  return explainer;
}

onnxplain::Options options_in(const Json& job) {
  onnxplain::Options options(job.value("method", ""));
  options.targets = targets_in(job.value("targets", Json()));
  options.memory = value_in(job.value("memory", Json()));
  options.score = job.value("score", "");
  if (job.contains("top")) options.top = job.at("top").get<std::int64_t>();
  const Json parameters = job.value("parameters", Json::object()), inputs = job.value("inputs", Json::object());
  for (const auto& [name, value] : parameters.items()) options.with(name, value_in(value));
  for (const auto& [name, value] : inputs.items()) options.inputs[name] = onnxplain::data_of(array_in<float>(value));
  return options;
}

Json explained(const Json& job) {
  const auto explainer = explainer_of(job);
  if (job.value("what", "") == "open") {
    Ort::SessionOptions options = onnxplain::session_options({});
    Json entries;
    for (const char* name : {"session.force_spinning_stop", "session.qdq_matmulnbits_accuracy_level"}) {
      entries[name] = options.GetConfigEntryOrDefault(name, "");
    }
    return {
        {"methods", explainer->methods()}, {"threads", onnxplain::threads_of_a_run({})}, {"settings", entries}};
  }
  const auto before = std::chrono::steady_clock::now();
  const onnxplain::Result result = explainer->explain(images_in(job.at("images")), options_in(job));
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - before;
  const auto out = job.at("out").get<std::string>();
  Json answer = {{"seconds", seconds.count()},
                 {"targets", result.targets.values},
                 {"labels", result.labels},
                 {"layout", result.layout},
                 {"measures", result.measures}};
  answer["attribution"] = written(result.attribution, out + ".attribution");
  answer["scores"] = written(result.scores, out + ".scores");
  answer["probabilities"] = written(result.probabilities, out + ".probabilities");
  if (job.value("draw", false)) {
    answer["heatmap"] = written(result.heatmap(), out + ".heatmap");
    answer["signed"] = written(result.signed_map(), out + ".signed");
    answer["overlay"] = written(result.overlay(), out + ".overlay");
  }
  return answer;
}

Json prepared(const Json& job) {
  const auto found =
      onnxplain::prepare(array_in<std::uint8_t>(job.at("pixels")), onnxplain::read_steps(job.at("steps")));
  const auto out = job.at("out").get<std::string>();
  return {
      {"rows", written(found.row, out + ".rows")}, {"seen", written(found.seen, out + ".seen")}, {"box", found.box}};
}

Json answered(const Json& job) {
  const auto refused = [](const char* kind, const std::exception& error) {
    return Json{{"error", {{"kind", kind}, {"text", error.what()}}}};
  };
  try {
    return job.value("what", "") == "prepare" ? prepared(job) : explained(job);
  } catch (const onnxplain::BundleError& error) {
    return refused("BundleError", error);
  } catch (const onnxplain::ParameterError& error) {
    return refused("ParameterError", error);
  } catch (const onnxplain::PictureError& error) {
    return refused("PictureError", error);
  } catch (const onnxplain::ModelError& error) {
    return refused("ModelError", error);
  }
}

}  // namespace

int main(int count, char** words) {
  if (count != 2) return 2;
  std::ifstream stream(words[1]);
  for (const Json& job : Json::parse(stream)) std::cout << answered(job).dump() << std::endl;
  return 0;
}
