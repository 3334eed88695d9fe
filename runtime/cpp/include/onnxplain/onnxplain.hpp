// Explains what a network saw: heat maps from the bundles that `onnxplain export` writes, over ONNX Runtime alone.
//
//   onnxplain::Explainer explainer("squeezenet.explain");
//   onnxplain::Result result = explainer.explain(picture, "integrated_gradients");
#pragma once

#include "onnxplain/explainer.hpp"
#include "onnxplain/version.hpp"
