/** What a loop holds in arrays of its own, beside what the runs of its graphs take: the planner leaves room for it. */

import { draws } from "./bundle.js";
import { product } from "./numbers.js";

// As measured in Python, in float32 arrays of the explained value's size; what is held here is about the same.
const PER_IMAGE = { sum: 1, solve: 2, smoothgrad_squared: 8, vargrad: 8, guided_gradcam: 6 };
const PER_IMAGE_OTHERWISE = 6;
const PER_ROW = { blur_integrated_gradients: 30, guided_integrated_gradients: 36, scorecam: 7 };
const PER_ROW_OTHERWISE = 2;
/** For each target, once: one group's sums and its finished map. A run that draws has an image in each row. */
const AT_ONCE = 8;
/** Layers of features and of their gradients, for each image and target, in float64. */
const LAYER = 12;
const LAYER_LOOPS = ["cam", "scorecam", "ablation_cam", "recipro_cam", "guided_gradcam"];
/** Bytes for each pixel that XRAI's regions take, which are several hundred masks. */
const MASKS = 1500;

/** Bytes for each image, for each row of a run, and for the call, that a method's loop holds. */
export function heldBy(bundle, method, parameters, targets, valueBytes) {
  const { loop } = method;
  let image = (PER_IMAGE[loop] ?? PER_IMAGE_OTHERWISE) * valueBytes * targets;
  let row = (PER_ROW[loop] ?? PER_ROW_OTHERWISE) * valueBytes * (loop.startsWith("blur") ? targets : 1);
  let call = AT_ONCE * valueBytes * targets;
  if (draws(bundle.graphs[method.graph])) [row, call] = [row + call, 0];
  if (LAYER_LOOPS.includes(loop) && bundle.layers.length) {
    const named = bundle.layers.filter((layer) => layer.name === parameters.layer);
    const sizes = (named.length ? named : bundle.layers).map((layer) => product(layer.shape.filter(Number.isInteger)));
    const size = 4 * Math.max(...sizes);
    image += LAYER * size * targets;
    row += 4 * size;
  }
  if (loop === "solve") call += solverBytes(method, parameters);
  if (loop === "xrai") call += Math.floor((MASKS * valueBytes) / 4);
  return { image: Math.trunc(image), row: Math.trunc(row), call: Math.trunc(call) };
}

/** The design's matrix and the copies that the fit makes of it; of HSIC, also the distances of the scores. */
function solverBytes(method, parameters) {
  const segments = (parameters.cells ?? 0) ** 2;
  const shown = parameters.samples || (parameters.designs ?? 0) * (segments + 1);
  const distances = method.finish === "dependence" ? 3072 * shown + 16 * Math.min(shown, 1000) ** 2 : 0;
  return 64 * shown * Math.max(segments, 1) + distances;
}

/** Whether the images of a call don't depend on each other, so that some can be explained before the others. */
export function oneByOne(parameters) {
  return parameters.noise_of !== "batch";
}
