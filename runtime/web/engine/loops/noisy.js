/** Statistics of the gradient at noisy copies of the image. */

import { BundleError } from "../errors.js";
import { deviationsOf } from "../feeds.js";
import { numbers } from "../numbers.js";

/**
 * The mean square of the gradient at noisy copies [N, T, …].
 *
 * Hooker et al.: A Benchmark for Interpretability Methods in Deep Neural Networks (2019, arXiv:1806.10758).
 */
export const smoothgradSquared = (work) => moments(work, (mean, square) => square);

/**
 * The variance of the gradient over noisy copies [N, T, …], dividing by their number; what rounding brings below 0 is
 * 0.
 *
 * Adebayo et al.: Local Explanation Methods for Deep Neural Networks Lack Sensitivity to Parameter Values (2018,
 * arXiv:1810.03307).
 */
export const vargrad = (work) => moments(work, (mean, square) => Math.max(square - mean ** 2, 0));

/** What `rule` makes of the mean and the mean square of the gradient over the noisy copies. */
async function moments(work, rule) {
  const graph = work.bundle.graphs.noise;
  if (!graph.outputs.includes("squares")) {
    throw new BundleError(`${graph.file} was exported before ${work.method.name} existed; export the network again`);
  }
  const feeds = { sigma: deviationsOf(await work.values(), work.parameters) };
  const shown = ([total, squares, norm]) => finished(total, squares, norm, rule);
  return shown(await work.sums(["total", "squares", "norm"], { steps: work.steps(), graph: "noise", feeds, shown }));
}

/** The number of copies is the same for all values of an image: [N or 1, 1, …]. */
function finished(total, squares, norm, rule) {
  const data = new Float32Array(total.data.length);
  const each = data.length / norm.data.length;
  for (let place = 0; place < data.length; place++) {
    const copies = norm.data[Math.floor(place / each)];
    data[place] = rule(total.data[place] / copies, squares.data[place] / copies);
  }
  return numbers(data, total.dims);
}
