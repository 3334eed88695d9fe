/**
 * Integrated gradients on a path that changes the least sensitive pixels first.
 *
 * Kapishnikov et al.: Guided Integrated Gradients: an Adaptive Path Method for Removing Noise (2021, arXiv:2106.09788).
 */

import { ParameterError } from "../errors.js";
import { baselines, numberOfBaselines } from "../fills.js";
import { broadcast, numbers, product, range, rowsOf, selected } from "../numbers.js";
import { eachTarget } from "./changed.js";

/** Distances that differ by less than this share are equal. */
const CLOSE = 1e-9;

/** The gradient along the guided path from baseline to image [N, T, …]; each target has a path of its own. */
export async function guidedIntegratedGradients(work) {
  const { baseline: value, baselines: draws, seed } = work.parameters;
  const values = await work.values();
  if (numberOfBaselines(value, values, draws) > 1) {
    throw new ParameterError(`${work.method.name} takes one baseline for each image; average several calls instead`);
  }
  const [start] = baselines(value, values, work.bundle, draws, seed);
  const [count, ...image] = values.dims;
  const size = product(image);
  const targets = await eachTarget(work.withParameters({ baseline: 0 }));
  const maps = new Float32Array(count * targets.length * size);
  for (const [target, one] of targets.entries()) {
    const found = await oneTarget(one, values, broadcast(start, values.dims), 1 / targets.length);
    for (let row = 0; row < count; row++) {
      maps.set(found.subarray(row * size, (row + 1) * size), (row * targets.length + target) * size);
    }
  }
  return numbers(maps, [count, targets.length, ...image]);
}

/** The maps of one target, as many images at a time as one run takes. */
async function oneTarget(work, values, starts, share) {
  const [count, ...image] = values.dims;
  const size = product(image);
  const together = work.rowsPerRun(work.bundle.graphs.gradient, 1);
  const maps = new Float32Array(count * size);
  for (let first = 0; first < count; first += together) {
    const past = Math.min(first + together, count);
    const images = range(past - first).map((place) => place + first);
    const gradient = async (rows) =>
      (await work.gradientsAt(numbers(Float32Array.from(rows), [past - first, ...image]), images)).data;
    const [ends, begins] = [rowsOf(values, first, past), rowsOf(starts, first, past)];
    const told = (attribution) => {
      work.advance((share * (past - first)) / work.parameters.steps);
      work.partial.show(work, [first, past], () => numbers(attribution, [past - first, 1, ...image]));
    };
    maps.set(await guidedPath(gradient, ends, begins, size, work.parameters, told), first * size);
  }
  return maps;
}

/**
 * Attributions of images, given `gradient(rows)`. Every step brings the path the same share of the L1 distance nearer
 * to the image. It moves the `fraction` of the elements with the smallest gradients, and as many more as it needs; none
 * leaves the straight path's own position by more than `max_dist` of the way.
 */
export async function guidedPath(gradient, images, starts, size, { steps, fraction, max_dist: most }, told) {
  const [end, start] = [Float64Array.from(images.data), Float64Array.from(starts.data)];
  const here = Float64Array.from(start);
  const attribution = new Float64Array(end.length);
  const rows = range(end.length / size);
  const distances = rows.map((row) => distance(start, end, row * size, size));
  for (let step = 0; step < steps; step++) {
    const slope = await gradient(here);
    const share = (step + 1) / steps;
    const bounds = [Math.max(share - most, 0), Math.min(share + most, 1)];
    for (const row of rows) {
      const part = (array) => array.subarray(row * size, (row + 1) * size);
      const path = { start: part(start), end: part(end), slope: part(slope) };
      const moved = stepOf(part(here), path, distances[row] * (1 - share), bounds, fraction);
      const [own, found] = [part(here), part(attribution)];
      for (let place = 0; place < size; place++) found[place] += (moved[place] - own[place]) * path.slope[place];
      own.set(moved);
    }
    told(attribution);
  }
  return attribution;
}

function distance(a, b, first, count) {
  let sum = 0;
  for (let place = first; place < first + count; place++) sum += Math.abs(a[place] - b[place]);
  return sum;
}

/** The next point of one image: at the `wanted` L1 distance from it. */
function stepOf(before, { start, end, slope }, wanted, [lowest, highest], fraction) {
  const size = before.length;
  const here = Float64Array.from(before);
  const high = new Float64Array(size);
  const place = Math.floor(fraction * (size - 1));
  for (let i = 0; i < size; i++) {
    const total = end[i] - start[i];
    high[i] = start[i] + total * highest;
    const share = total === 0 ? highest : (here[i] - start[i]) / total;
    if (share < lowest) here[i] = start[i] + total * lowest;
  }
  const costs = new Float64Array(size);
  for (;;) {
    const left = distance(here, end, 0, size);
    if (Math.abs(left - wanted) <= CLOSE + CLOSE * Math.abs(wanted)) return here;
    // What has arrived is not moved.
    for (let i = 0; i < size; i++) costs[i] = here[i] === high[i] ? Infinity : Math.abs(slope[i]);
    const threshold = selected(costs.slice(), place);
    const chosen = (i) => costs[i] <= threshold && costs[i] < Infinity;
    let reach = 0;
    for (let i = 0; i < size; i++) if (chosen(i)) reach += Math.abs(here[i] - high[i]);
    const gamma = reach > 0 ? (left - wanted) / reach : Infinity;
    const share = Math.min(gamma, 1);
    for (let i = 0; i < size; i++) {
      if (chosen(i)) here[i] = share < 1 ? here[i] + (high[i] - here[i]) * share : high[i];
    }
    if (!(gamma > 1 && reach > 0)) return here;
  }
}
