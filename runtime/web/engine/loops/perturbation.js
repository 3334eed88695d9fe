/** The loops of methods that perturb a picture and are no plain sum: solved segments, and RISE with a detector. */

import { BundleError } from "../errors.js";
import { numbers } from "../numbers.js";
import { tableOf } from "../plans.js";
import { segmentsOf } from "../segments.js";
import { findSolver } from "../solvers.js";

/** Every pixel gets its segment's value, [N, T, 1, H, W], that the method's solver finds from the masked scores. */
export async function solve(work) {
  const shape = work.mapShape; // an error where there are no pictures
  const [height, width] = work.size;
  const segments = segmentsOf(work.parameters, work.count, height, width);
  const [count, targets] = work.leading;
  const size = height * width;
  const maps = new Float32Array(count * targets * size);
  for (const [image, own] of segments.entries()) {
    const one = segments.length === 1;
    const part = one ? work : work.part(image, image + 1);
    const values = await solved(part, own, height, width);
    const start = one ? 0 : image * targets;
    for (let map = 0; map < part.count * targets; map++) {
      for (let pixel = 0; pixel < size; pixel++) {
        maps[(start + map) * size + pixel] = values.data[own.labels[pixel] * values.dims[1] + map];
      }
    }
  }
  return numbers(maps, [count, targets, ...shape]);
}

/** The values [S, images · targets] of shared segments. */
async function solved(work, { labels, count }, height, width) {
  const solver = findSolver(work.method.finish);
  const design = solver.design(work.parameters, count);
  const segments = numbers(BigInt64Array.from(labels, BigInt), [1, height, width]);
  const [scores] = await work.collect(["scores"], { steps: design.states, feeds: { segments } });
  const [images, steps, targets] = scores.dims;
  const columns = new Float64Array(scores.data.length);
  scores.data.forEach((score, at) => {
    const [image, step, target] = [Math.floor(at / (steps * targets)), Math.floor(at / targets) % steps, at % targets];
    columns[step * images * targets + image * targets + target] = score;
  });
  const values = solver.solve(design, numbers(columns, [steps, images * targets]), work.parameters);
  return numbers(values, [count, images * targets]);
}

/**
 * RISE, each mask weighted by how far the masked image looks like training data, on a scale from fill to image. Where
 * the empty image looks *more* like training data, the ends change places, and where both are alike all masks count the
 * same.
 */
export async function detected(work) {
  const [ends, share] = await endsOf(work);
  // Cosines lie in [-1, 1]: with ends below them, every mask has weight 1.
  const low = ends.map(([a, b]) => (a !== b ? Math.min(a, b) : -3));
  const high = ends.map(([a, b]) => (a !== b ? Math.max(a, b) : -2));
  const feed = (values) => numbers(Float32Array.from(values), [work.count]);
  return work.sum({ share, feeds: { low: feed(low), high: feed(high) } });
}

/** The detector's confidence in the fill image and the image itself: steps with all cells off, and all on. */
async function endsOf(work) {
  checkDetector(work.bundle);
  const [height, width] = work.size;
  const steps = tableOf([0, 2].map((on) => [0, on, 2, height / 2, width / 2, 1, 1, 0, 0]));
  const nothing = numbers(new Float32Array(work.count), [work.count]);
  const count = work.steps().dims[0];
  const share = count / (count + 2);
  const feeds = { low: nothing, high: nothing };
  const [found] = await work.collect(["confidence"], { steps, feeds, share: 1 - share });
  const ends = Array.from({ length: work.count }, (_, image) => [found.data[2 * image], found.data[2 * image + 1]]);
  return [ends, share];
}

/** BundleError where the detector was trained on another network. */
function checkDetector({ detector, source, path }) {
  if (detector !== null && detector.network === source.sha256) return;
  const whose =
    detector === null ? "nobody knows which network" : `another network (${detector.network.slice(0, 12)}…)`;
  throw new BundleError(
    `the detector in ${path} belongs to ${whose}; train one for this: onnxplain detector ${path} --data PICTURES`,
  );
}
