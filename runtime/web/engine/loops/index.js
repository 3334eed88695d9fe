/**
 * The engine's procedures: what runs a method's graphs. Most methods are a sum over steps; the others are thin loops.
 */

import { BundleError, unknown } from "../errors.js";
import { blurIntegratedGradients } from "./blur_path.js";
import { ablationCam, cam, guidedGradcam, reciproCam, scoreCam } from "./cam.js";
import { guidedIntegratedGradients } from "./guided_path.js";
import { smoothgradSquared, vargrad } from "./noisy.js";
import { expectedGradients, inputXGradient, integratedGradients, saliency, smoothgradIntegrated } from "./paths.js";
import { detected, solve } from "./perturbation.js";
import { single } from "./single.js";
import { summed } from "./summed.js";
import { xrai } from "./xrai.js";

/** By the name that explainer.json gives a method's: functions `(work) -> float32 [N, T, …]`. */
export const LOOPS = {
  sum: summed,
  saliency,
  input_x_gradient: inputXGradient,
  integrated_gradients: integratedGradients,
  smoothgrad_integrated: smoothgradIntegrated,
  expected_gradients: expectedGradients,
  smoothgrad_squared: smoothgradSquared,
  vargrad,
  blur_integrated_gradients: blurIntegratedGradients,
  guided_integrated_gradients: guidedIntegratedGradients,
  xrai,
  cam,
  scorecam: scoreCam,
  ablation_cam: ablationCam,
  recipro_cam: reciproCam,
  guided_gradcam: guidedGradcam,
  solve,
  detected,
  single,
};

/** The loop; BundleError for one that this version doesn't know. */
export function findLoop(name) {
  if (name in LOOPS) return LOOPS[name];
  throw new BundleError(`${unknown("loop", name, Object.keys(LOOPS))}; pip install --upgrade onnxplain`);
}
