// Runs the cases of tools/portability_cases.py on onnxruntime's C++ API: portability_run CASES.JSON FOLDER.
#include <onnxruntime_cxx_api.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

using Json = nlohmann::json;
namespace files = std::filesystem;

struct Kind {
  ONNXTensorElementDataType type;
  const char* name;
  std::size_t bytes;
};

const std::vector<Kind> KINDS = {
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, "float32", 4},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, "int64", 8},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, "uint8", 1},
};

std::vector<char> read(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

Ort::Value tensor(const Json& input, std::vector<char>& data) {
  const auto shape = input["shape"].get<std::vector<std::int64_t>>();
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  for (const Kind& kind : KINDS) {
    if (input["dtype"] == kind.name) {
      return Ort::Value::CreateTensor(memory, data.data(), data.size(), shape.data(), shape.size(), kind.type);
    }
  }
  throw std::runtime_error("no tensor of " + input["dtype"].get<std::string>());
}

Json written(const Ort::Value& value, const std::string& name, std::size_t number, const files::path& place) {
  const auto about = value.GetTensorTypeAndShapeInfo();
  const std::string file = "output_" + std::to_string(number) + ".bin";
  for (const Kind& kind : KINDS) {
    if (about.GetElementType() == kind.type) {
      std::ofstream stream(place / file, std::ios::binary);
      const auto bytes = about.GetElementCount() * kind.bytes;
      stream.write(static_cast<const char*>(value.GetTensorRawData()), static_cast<std::streamsize>(bytes));
      return {{"name", name}, {"dtype", kind.name}, {"shape", about.GetShape()}, {"file", file}};
    }
  }
  throw std::runtime_error("an output of an unknown type: " + name);
}

Json run(Ort::Env& environment, const Json& entry, const files::path& place) {
  Ort::SessionOptions options;
  const auto file = files::path(entry["model"].get<std::string>());
  Ort::Session session(environment, file.c_str(), options);
  std::vector<std::vector<char>> data;
  std::vector<std::string> names;
  std::vector<Ort::Value> values;
  for (const Json& input : entry["inputs"]) {
    data.push_back(read(input["file"]));
    values.push_back(tensor(input, data.back()));
    names.push_back(input["name"]);
  }
  const auto outputs = entry["outputs"].get<std::vector<std::string>>();
  std::vector<const char*> given, wanted;
  for (const auto& name : names) given.push_back(name.c_str());
  for (const auto& name : outputs) wanted.push_back(name.c_str());
  const auto found = session.Run(Ort::RunOptions{nullptr}, given.data(), values.data(), values.size(), wanted.data(),
                                 wanted.size());
  Json result = Json::array();
  for (std::size_t number = 0; number < found.size(); ++number) {
    result.push_back(written(found[number], outputs[number], number, place));
  }
  return {{"outputs", result}};
}

int main(int count, char** arguments) {
  if (count != 3) {
    std::cerr << "usage: portability_run CASES.JSON FOLDER\n";
    return 2;
  }
  Ort::Env environment(ORT_LOGGING_LEVEL_FATAL, "portability");
  for (const Json& entry : Json::parse(std::ifstream(arguments[1]))) {
    const auto place = files::path(arguments[2]) / entry["id"].get<std::string>();
    if (files::exists(place / "result.json")) continue;
    files::create_directories(place);
    std::ofstream(place / "started");
    Json result;
    try {
      result = run(environment, entry, place);
    } catch (const std::exception& error) {
      result = {{"error", error.what()}};
    }
    std::ofstream(place / "result.json") << result.dump();
  }
}
