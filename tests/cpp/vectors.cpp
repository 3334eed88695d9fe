// Compares the engine with the vectors that the Python engine recorded: `vectors FILE …`, tests/vectors/*.json.
//
// Prints how many cases of each file were compared, and what differs; ends with 1 if anything does.
#include <cmath>
#include <functional>
#include <iostream>
#include <map>

#include "comparing.hpp"
#include "jobs.hpp"

namespace {

using onnxplain::Shape;

// A case of something that this engine has no part in.
struct Skipped {};

bool is_array_object(const Json& data) { return data.is_object() && data.contains("shape") && data.contains("data"); }

Value value_of_case(const Json& data) {
  if (!is_array_object(data)) return onnxplain::reading::value(data);
  return array_of<float>(data);
}

onnxplain::Parameters parameters_of(const Json& data) {
  onnxplain::Parameters parameters;
  for (const auto& [name, value] : data.items()) {
    const bool number = name == "noise" || name == "probability" || name == "width" || name == "ridge";
    parameters.set(name, number ? Value(value.get<double>()) : value_of_case(value));
  }
  return parameters;
}

std::int64_t whole(const Json& data, const char* name) { return data.at(name).get<std::int64_t>(); }

Json plan_case(const Json& data) {
  const auto name = data.at("rule").get<std::string>();
  if (!onnxplain::plans().count(name)) throw Skipped();  // a preset's
  const onnxplain::Plan& plan = onnxplain::find_plan(name);
  if (plan.columns != data.at("columns").get<std::vector<std::string>>()) return "other columns";
  // The rules take checked parameters, where a pair is no list.
  if (data.at("parameters").value("window", Json()).is_array() && data.contains("error")) throw Skipped();
  return json_of(plan.rule(parameters_of(data.at("parameters")), whole(data, "height"), whole(data, "width")));
}

Json integration_case(const Json& data) {
  return json_of(onnxplain::points_of(data.at("rule").get<std::string>(), whole(data, "count")));
}

Json random_case(const Json& data) {
  const auto shape = data.at("shape").get<Shape>();
  const auto draws = data.at("draws").get<std::vector<std::int64_t>>();
  const std::int64_t count = onnxplain::count_of(shape), seed = whole(data, "seed");
  Array<float> levels = onnxplain::uniform(seed, draws, count);
  for (float& each : levels.values) each = std::nearbyint(each * 504019.0f - 0.5f);
  if (data.contains("from")) {
    const auto size = data.at("levels").at("shape").get<Shape>();
    const auto* first = levels.values.data() + whole(data, "from");
    return {{"levels", json_of(Array<float>(size, std::vector<float>(first, first + size[0])))}};
  }
  levels.shape = onnxplain::joined({static_cast<std::int64_t>(draws.size())}, shape);
  Array<float> normal = onnxplain::normal(seed, draws, count);
  normal.shape = levels.shape;
  return {{"levels", json_of(levels)}, {"normal", json_of(normal)}};
}

Json memory_case(const Json& data) {
  const auto call = data.at("call").get<std::string>();
  const auto memory = [&] { return onnxplain::reading::value(data.at("memory")); };
  if (call == "parse_memory") return onnxplain::parse_memory(memory());
  if (call == "rows_per_run")
    return onnxplain::rows_per_run(whole(data, "bytes_per_row"), memory(), whole(data, "targets"), whole(data, "most"),
                                   whole(data, "beside"));
  if (call == "useful_rows")
    return onnxplain::useful_rows(whole(data, "bytes_per_row"), whole(data, "threads"), whole(data, "most"));
  Json found = Json::array();
  if (call == "chunks")
    for (const auto& run : onnxplain::chunks(whole(data, "images"), whole(data, "steps"), whole(data, "rows"),
                                             data.at("shared").get<bool>()))
      found.push_back({run.images.start, run.images.stop, run.steps.start, run.steps.stop, run.first, run.last});
  if (call == "images_at_once")
    for (const auto& group : onnxplain::images_at_once(whole(data, "images"), whole(data, "room"), whole(data, "held"),
                                                       whole(data, "beside")))
      found.push_back({group.start, group.stop});
  return found;
}

Json targets_case(const Json& data) {
  const auto scores = array_of<float>(data.at("scores"));
  std::optional<std::vector<std::string>> labels;
  if (!data.at("labels").is_null()) labels = data.at("labels").get<std::vector<std::string>>();
  const auto targets = targets_in(data.at("targets"));
  const auto chosen = data.at("best").is_null()
                          ? onnxplain::asked(targets, scores.length(), scores.stride(), labels).by(scores)
                          : onnxplain::top_classes(whole(data, "best"), targets, scores);
  return {{"table", json_of(chosen.targets)}, {"several", chosen.several}};
}

Json name_case(const Json& data) {
  return onnxplain::unknown(data.at("kind").get<std::string>(), data.at("name").get<std::string>(),
                            data.at("known").get<std::vector<std::string>>());
}

Json parameters_case(const Json& data) {
  onnxplain::Method method;
  method.name = data.at("method").get<std::string>();
  for (const auto& [name, entry] : data.at("entries").items())
    method.parameters.push_back(onnxplain::reading::parameter(name, entry));
  std::map<std::string, Value> given;
  for (const auto& [name, value] : data.at("given").items()) given[name] = onnxplain::reading::value(value);
  const auto checked = onnxplain::check_parameters(method, given);
  Json found;
  for (const auto& [name, value] : checked.all()) {
    if (value.is_number()) found[name] = value.number();
    if (value.is_text()) found[name] = *value.as<std::string>();
    if (value.as<bool>()) found[name] = *value.as<bool>();
    if (value.none()) found[name] = nullptr;
    if (const auto* sides = value.as<onnxplain::Sides>()) found[name] = {sides->rows, sides->columns};
  }
  return found;
}

Json solver_case(const Json& data) {
  const auto& solver = onnxplain::find_solver(data.at("solver").get<std::string>());
  const auto parameters = parameters_of(data.at("parameters"));
  const auto design = solver.design(parameters, whole(data, "segments"));
  Json found = {{"states", json_of(design.states)}};
  found["weights"] = json_of(Array<double>({static_cast<std::int64_t>(design.weights.size())}, design.weights));
  found["expected"] = json_of(solver.solve(design, array_of<double>(data.at("scores")), parameters));
  return found;
}

Json cam_case(const Json& data) {
  const auto call = data.at("call").get<std::string>();
  const auto floats = [&](const char* name) { return array_of<float>(data.at(name)); };
  if (onnxplain::cams::formulas().count(call))
    return json_of(onnxplain::find_cam(call)(floats("features"), floats("gradients")));
  if (call == "scorecam")
    return json_of(onnxplain::cams::weighted(floats("features"), array_of<double>(data.at("gains"))));
  if (call == "enlarged") {
    const auto size = data.at("size").get<Shape>();
    return json_of(onnxplain::upsampled(array_of<double>(data.at("maps")), {size[0], size[1]}, "bilinear"));
  }
  if (call == "scorecam_masks") {
    const auto features = floats("features");
    const auto size = data.at("size").get<Shape>();
    Array<float> masks({0, size[0], size[1]});
    for (std::int64_t k = 0; k < features.length(); ++k, ++masks.shape[0]) {
      const auto mask =
          onnxplain::loops::scorecam_mask(features.at(k), features.shape[1], features.shape[2], {size[0], size[1]});
      masks.values.insert(masks.values.end(), mask.values.begin(), mask.values.end());
    }
    return json_of(masks);
  }
  onnxplain::Layer layer;
  layer.layout = data.value("layout", "");
  if (call == "on_grid") {
    layer.prefix = whole(data, "prefix");
    layer.rows = data.at("grid")[0].get<std::int64_t>();
    layer.columns = data.at("grid")[1].get<std::int64_t>();
    return json_of(onnxplain::on_grid(floats("values"), layer, 1));
  }
  if (call == "in_layout") {
    const auto before = floats("before");
    layer.prefix = before.shape[1];
    return json_of(onnxplain::in_layout(floats("values"), layer, before.values.data()));
  }
  throw Skipped();  // parts of loops, which whole methods are compared for
}

Json sums_case(const Json& data) {
  const auto call = data.at("call").get<std::string>();
  if (call == "mean")
    return json_of(onnxplain::mean_of(array_of<float>(data.at("total")), array_of<float>(data.at("norm"))));
  if (call == "activate")
    return json_of(onnxplain::activate(array_of<float>(data.at("scores")), data.at("activation").get<std::string>()));
  if (call == "deviations")
    return json_of(onnxplain::deviations_of(array_of<float>(data.at("values")), parameters_of(data.at("parameters"))));
  throw Skipped();  // a preset's
}

Json fills_case(const Json& data) {
  onnxplain::Bundle bundle;
  onnxplain::Input input;
  input.explained = true;
  input.layout = data.value("layout", "NCHW");
  bundle.inputs.push_back(input);
  if (data.contains("steps") && !data.at("steps").empty()) bundle.steps = onnxplain::read_steps(data.at("steps"));
  const auto rows = array_of<float>(data.at("rows"));
  if (!data.contains("baselines"))
    return json_of(onnxplain::fill_values("fill", value_of_case(data.at("value")), rows, bundle, whole(data, "seed")));
  const Value value = value_of_case(data.at("baselines"));
  const onnxplain::Baselines baselines(value, rows, bundle, whole(data, "draws"), whole(data, "seed"));
  Array<float> all(onnxplain::joined({0}, rows.shape, 1));
  for (std::int64_t number = 0; number < baselines.count(); ++number) {
    const auto one = baselines.at(number);
    all.shape[0] += one.length();
    all.values.insert(all.values.end(), one.values.begin(), one.values.end());
  }
  return json_of(all);
}

Json paths_case(const Json& data) {
  namespace loops = onnxplain::loops;
  const auto call = data.at("call").get<std::string>();
  if (call == "gaussian_matrix")
    return json_of(loops::gaussian_matrix(whole(data, "size"), data.at("sigma").get<double>()));
  if (call == "expected_draws") {
    const std::int64_t samples = whole(data, "samples");
    const auto draws =
        loops::expected_draws(samples, whole(data, "baselines"), whole(data, "seed"), data.at("fresh").get<bool>());
    return {{"alpha", json_of(Array<float>({samples}, draws.alpha))},
            {"chosen", json_of(Array<std::int64_t>({samples}, draws.baseline))}};
  }
  const auto images = array_of<float>(data.at("images"));
  if (call == "blurred") {
    Array<double> found = onnxplain::converted<double>(images);
    found.values =
        loops::blurred(found.values, onnxplain::joined({}, images.shape, 1), true, data.at("sigma").get<double>());
    return json_of(found);
  }
  const auto coefficients = array_of<float>(data.at("coefficients"));
  const auto gradient = [&](Array<float> rows) {
    for (std::size_t i = 0; i < rows.values.size(); ++i)
      rows.values[i] *= 2 * coefficients.values[i % coefficients.values.size()];
    return rows;
  };
  return json_of(loops::guided_path(gradient, images, array_of<float>(data.at("starts")), whole(data, "steps"),
                                    data.at("fraction").get<double>(), data.at("max_dist").get<double>()));
}

Json regions_case(const Json& data) {
  const auto call = data.at("call").get<std::string>();
  if (call == "grid")
    return json_of(onnxplain::grid_segments(whole(data, "cells"), whole(data, "height"), whole(data, "width")));
  if (call == "segments") {
    onnxplain::Parameters parameters;
    const Json& given = data.at("segments");
    const bool fractions = is_array_object(given) && given.at("data").dump().find('.') != std::string::npos;
    if (!is_array_object(given)) {
      parameters.set("segments", given.get<std::string>());
      parameters.set("cells", whole(data, "cells"));
    } else if (fractions) {
      parameters.set("segments", array_of<float>(given));
    } else {
      parameters.set("segments", array_of<std::int64_t>(given));
    }
    const auto size = data.at("size").get<Shape>();
    return json_of(onnxplain::segments_of(parameters, whole(data, "images"), size[0], size[1]));
  }
  const auto attribution = array_of<double>(data.at("attribution"));
  const Value given = data.contains("masks") ? Value(array_of<std::uint8_t>(data.at("masks")))
                                             : Value(array_of<std::int64_t>(data.at("segments")));
  const auto masks = onnxplain::given_masks(given, 1, attribution.shape[0], attribution.shape[1]);
  return json_of(Array<double>(attribution.shape, onnxplain::grown(attribution.values, masks[0])));
}

Json resizing_case(const Json& data) {
  const auto call = data.at("call").get<std::string>();
  if (call == "resized_shape") {
    onnxplain::Step step;
    const Json& given = data.at("step");
    step.rule = given.at("rule").get<std::string>();
    step.size = given.at("size").is_array() ? given.at("size").get<Shape>() : Shape{whole(given, "size")};
    const auto found = onnxplain::preparing::resized_shape(whole(data, "height"), whole(data, "width"), step);
    return {found.first, found.second};
  }
  const auto kernel = data.at("kernel").get<std::string>();
  const bool antialias = data.at("antialias").get<bool>();
  if (call == "resize") {
    const auto size = data.at("size").get<Shape>();
    return json_of(onnxplain::resize(array_of<double>(data.at("pixels")), size[0], size[1],
                                     {kernel, antialias, data.at("rounded").get<bool>()}));
  }
  Array<double> matrix({whole(data, "target"), whole(data, "source")});
  const auto taps = onnxplain::taps_of(matrix.shape[1], matrix.shape[0], kernel, antialias);
  for (std::int64_t i = 0; i < matrix.length(); ++i) {
    const auto& each = taps[static_cast<std::size_t>(i)];
    for (std::size_t k = 0; k < each.places.size(); ++k) matrix.at(i)[each.places[k]] += each.weights[k];
  }
  return json_of(matrix);
}

Json preprocessing_case(const Json& data) {
  if (!data.contains("steps")) throw Skipped();  // a preset that can't be: export's concern
  const auto steps = onnxplain::read_steps(data.at("steps"));
  if (!data.contains("pixels")) return "no error";
  const auto found = onnxplain::prepare(array_of<std::uint8_t>(data.at("pixels")), steps);
  return {{"rows", json_of(found.row)}, {"seen", json_of(found.seen)}, {"box", found.box}};
}

Json heatmaps_case(const Json& data) {
  if (data.contains("statistic") || data.contains("reduction")) throw Skipped();  // presets'
  const auto attribution = array_of<float>(data.at("attribution"));
  const auto layout = data.at("layout").get<std::string>();
  const double percentile = data.value("percentile", 99.0);
  if (data.at("call") == "heatmap") return json_of(onnxplain::heatmap(attribution, layout, percentile));
  return json_of(onnxplain::signed_map(attribution, layout, percentile));
}

Json drawing_case(const Json& data) {
  if (data.value("colour_map", "inferno") != "inferno") throw Skipped();  // this engine has one
  const auto call = data.at("call").get<std::string>();
  if (call == "overlay")
    return json_of(onnxplain::overlay(array_of<std::uint8_t>(data.at("seen")), array_of<float>(data.at("heat")),
                                      data.value("strength", 0.85)));
  if (call != "colours") throw Skipped();
  std::string hexadecimal;
  for (const auto& colour : onnxplain::inferno())
    for (const std::uint8_t part : colour) {
      hexadecimal += "0123456789abcdef"[part / 16];
      hexadecimal += "0123456789abcdef"[part % 16];
    }
  return {{"hexadecimal", hexadecimal}};
}

// What a case expects, as the functions above give it.
Json expected_of(const Json& data) {
  Json expected = Json::object();
  for (const char* name :
       {"levels", "normal", "alpha", "chosen", "rows", "seen", "box", "states", "weights", "hexadecimal"})
    if (data.contains(name)) expected[name] = data.at(name);
  if (data.contains("steps") && data.contains("expected")) return data.at("expected");
  if (expected.contains("states")) expected["expected"] = data.at("expected");
  return data.contains("expected") && !expected.contains("states") ? data.at("expected") : expected;
}

std::string name_in(std::string file) {
  file = file.substr(file.find_last_of("/\\") + 1);
  return file.substr(0, file.find('.'));
}

const std::map<std::string, std::function<Json(const Json&)>>& handlers() {
  static const std::map<std::string, std::function<Json(const Json&)>> known = {{"plans", plan_case},
                                                                                {"integration", integration_case},
                                                                                {"random", random_case},
                                                                                {"memory", memory_case},
                                                                                {"targets", targets_case},
                                                                                {"unknown_names", name_case},
                                                                                {"parameters", parameters_case},
                                                                                {"solvers", solver_case},
                                                                                {"cams", cam_case},
                                                                                {"sums", sums_case},
                                                                                {"fills", fills_case},
                                                                                {"paths", paths_case},
                                                                                {"regions", regions_case},
                                                                                {"resizing", resizing_case},
                                                                                {"preprocessing", preprocessing_case},
                                                                                {"heatmaps", heatmaps_case},
                                                                                {"drawing", drawing_case}};
  return known;
}

int differing(const std::string& file) {
  std::ifstream stream(file);
  const Json vectors = Json::parse(stream);
  const auto handler = handlers().find(name_in(file));
  int compared = 0, skipped = 0, wrong = 0;
  for (const Json& data : vectors.at("cases")) {
    Json found, expected = data.contains("error") ? data.at("error").at("text") : expected_of(data);
    try {
      if (handler == handlers().end()) throw Skipped();
      found = handler->second(data);
    } catch (const Skipped&) {
      ++skipped;
      continue;
    } catch (const onnxplain::Error& error) {
      found = error.what();
    } catch (const Json::exception& error) {
      found = std::string("the case: ") + error.what();
    }
    ++compared;
    if (agrees(found, expected, vectors.at("tolerance").get<double>())) continue;
    ++wrong;
    std::cout << "  differs: " << data.dump().substr(0, 400) << "\n    found " << found.dump().substr(0, 400)
              << "\n    expected " << expected.dump().substr(0, 400) << "\n";
  }
  std::cout << name_in(file) << ": " << compared << " compared, " << skipped << " skipped, " << wrong << " wrong\n";
  return wrong;
}

}  // namespace

int main(int count, char** words) {
  int wrong = 0;
  for (int i = 1; i < count; ++i) wrong += differing(words[i]);
  return wrong ? 1 : 0;
}
