/**
 * Attribution of regions: the picture's segments, ranked by integrated gradients.
 *
 * Kapishnikov, Bolukbasi, Viégas, Terry: XRAI: Better Attributions Through Regions (2019, arXiv:1906.02825).
 */

import { ParameterError, quoted } from "../errors.js";
import { baselines, boundsOf, fillValues, numberOfBaselines } from "../fills.js";
import { spatialAxes } from "../images.js";
import { pointsOf } from "../integration.js";
import { numbers, product, rowsOf } from "../numbers.js";
import { tableOf } from "../plans.js";
import { givenMasks, grown } from "../regions.js";

/**
 * Maps [N, T, 1, H, W] ([N, T, H, W, 1] for NHWC): each region's mean attribution, which is the mean of integrated
 * gradients from all baselines, its channels added up, or the largest for `reduction` "max".
 */
export async function xrai(work) {
  if (work.bundle.inside) {
    throw new ParameterError(
      `xrai needs gradients at the picture; this bundle's are at ${quoted(work.bundle.inside.name)}`,
    );
  }
  const { segments, reduction } = work.parameters;
  if (segments === null) {
    throw new ParameterError(
      `${work.method.name} needs scikit-image to segment pictures: pip install "onnxplain[segments]", or give ` +
        "segments= of your own",
    );
  }
  const [height, width] = work.size;
  const values = await work.values();
  const planar = spatialAxes(work.bundle.image.layout, values)[0] === 2;
  const masks = givenMasks(segments, work.count, height, width);
  const attributions = await meanOverBaselines(work, values);
  const [count, targets] = work.leading;
  const size = height * width;
  const maps = new Float32Array(count * targets * size);
  for (let map = 0; map < count * targets; map++) {
    const own = rowsOf(
      numbers(attributions, [count * targets, attributions.length / count / targets]),
      map,
      map + 1,
    ).data;
    maps.set(grown(reduced(own, size, planar, reduction), masks[Math.floor(map / targets)]), map * size);
  }
  return numbers(maps, [count, targets, ...work.mapShape]);
}

function reduced(own, size, planar, reduction) {
  const channels = own.length / size;
  return Float64Array.from({ length: size }, (_, pixel) => {
    const of = (channel) => own[planar ? channel * size + pixel : pixel * channels + channel];
    let found = of(0);
    for (let c = 1; c < channels; c++) found = reduction === "max" ? Math.max(found, of(c)) : found + of(c);
    return found;
  });
}

/** Integrated gradients, the mean over the baselines, in float64. */
async function meanOverBaselines(work, values) {
  const steps = tableOf(pointsOf(work.parameters.rule, work.parameters.steps));
  const quiet = work.withParameters({ baseline: 0 });
  const { count, starts } = startsOf(work, values);
  let total = null;
  for (const baseline of starts) {
    const [sum] = await quiet.sums(["total"], { steps, graph: "path", share: 1 / count, feeds: { baseline } });
    if (total === null) total = Float64Array.from(sum.data);
    else sum.data.forEach((value, place) => (total[place] += value));
  }
  return total.map((value) => value / count);
}

/** How many baselines there are, and each, [1 or N, …]. */
function startsOf(work, rows) {
  const value = work.parameters.baseline;
  const { bundle } = work;
  if (value === "black_white" && bundle.steps.length) {
    return { count: 2, starts: ["black", "white"].map((name) => fillValues("baseline", name, rows, bundle)) };
  }
  if (value === "black_white" || value === "range") {
    // Without preprocessing nobody knows what black is.
    const [count, ...image] = rows.dims;
    const size = product(image);
    const bounds = Array.from({ length: count }, (_, row) => boundsOf(rows.data, row * size, size));
    const dims = [count, ...image.map(() => 1)];
    return {
      count: 2,
      starts: [0, 1].map((end) =>
        numbers(
          Float32Array.from(bounds, (each) => each[end]),
          dims,
        ),
      ),
    };
  }
  return { count: numberOfBaselines(value, rows, 1), starts: baselines(value, rows, bundle) };
}
