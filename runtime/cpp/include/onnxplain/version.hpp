#pragma once

namespace onnxplain {

constexpr const char* VERSION = "0.1.0";

}  // namespace onnxplain
