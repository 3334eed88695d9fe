// explain BUNDLE PICTURE OUT.png [--method NAME] [--target CLASS] [name=value …]
//
// Prints the class that the network sees and its probability, and writes what made it so over the picture.
#include <cstdio>
#include <exception>
#include <onnxplain/onnxplain.hpp>
#include <string>
#include <vector>

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb_image.h>
#include <stb_image_write.h>

namespace {

onnxplain::Picture read(const std::string& file) {
  int width = 0, height = 0, channels = 0;
  unsigned char* const pixels = stbi_load(file.c_str(), &width, &height, &channels, 3);
  if (!pixels) throw onnxplain::PictureError(file + ": can't be read as a picture: " + stbi_failure_reason());
  onnxplain::Picture picture(pixels, height, width);
  stbi_image_free(pixels);
  return picture;
}

bool is_number(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

// "name=value" as the parameter that the method has under that name.
void set(onnxplain::Options& options, const onnxplain::Explainer& explainer, const std::string& word) {
  const std::size_t middle = word.find('=');
  const std::string name = word.substr(0, middle), text = middle == std::string::npos ? "" : word.substr(middle + 1);
  for (const onnxplain::Parameter& parameter : explainer.parameters(options.method))
    if (parameter.name == name) {
      options.with(name, onnxplain::parameter_from_text(parameter, text));
      return;
    }
  options.with(name, text);  // explain says which names there are
}

void run(const std::vector<std::string>& words) {
  onnxplain::Explainer explainer(words[0]);
  onnxplain::Options options;
  std::vector<std::string> parameters;
  for (std::size_t i = 3; i < words.size(); ++i) {
    const bool last = i + 1 == words.size();
    if (words[i] == "--method" && !last) {
      options.method = words[++i];
    } else if (words[i] == "--target" && !last) {
      const std::string& target = words[++i];
      options.targets = is_number(target) ? onnxplain::Targets(std::stoll(target)) : onnxplain::Targets(target);
    } else {
      parameters.push_back(words[i]);
    }
  }
  for (const std::string& word : parameters) set(options, explainer, word);
  const onnxplain::Result result = explainer.explain(read(words[1]), options);
  const auto target = static_cast<std::size_t>(result.targets.values[0]);
  std::printf("%s: %.1f %%\n", result.labels[0].c_str(),
              100 * static_cast<double>(result.probabilities.values[target]));
  const onnxplain::Array<std::uint8_t> drawn = result.overlay();
  const int height = static_cast<int>(drawn.shape[1]), width = static_cast<int>(drawn.shape[2]);
  if (!stbi_write_png(words[2].c_str(), width, height, 3, drawn.values.data(), 3 * width))
    throw onnxplain::Error(words[2] + ": can't be written");
}

}  // namespace

int main(int count, char** words) {
  if (count < 4) {
    std::fprintf(stderr, "explain BUNDLE PICTURE OUT.png [--method NAME] [--target CLASS] [name=value ...]\n");
    return 2;
  }
  try {
    run({words + 1, words + count});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "explain: %s\n", error.what());
    return 1;
  }
  return 0;
}
