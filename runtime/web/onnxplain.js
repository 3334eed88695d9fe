/** Explains what a neural network saw, in the browser or in Node; types and documentation: onnxplain.d.ts. */

export { Explainer } from "./engine/explainer.js";
export { Result } from "./engine/result.js";
export { prepare } from "./engine/preprocessing.js";
export {
  COLOUR_MAPS,
  colours,
  diverging,
  heatmap,
  overlay,
  overlayOriginal,
  signedMap,
  signedOverlay,
} from "./engine/heatmap.js";
export { BundleError, DeviceError, ModelError, OnnxplainError, ParameterError, PictureError } from "./engine/errors.js";
export { VERSION } from "./engine/version.js";
