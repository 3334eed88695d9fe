/** Methods on the straight path from baselines to the image, and the gradient's other plain forms. */

import { deviationsOf } from "../feeds.js";
import { baselines, numberOfBaselines } from "../fills.js";
import { pointsOf } from "../integration.js";
import { numbers, product, range, rowsOf } from "../numbers.js";
import { tableOf } from "../plans.js";
import { LIMIT, uniform } from "../random.js";
import { added } from "../summing.js";

/** The draw numbers of the points of expected gradients and of their baselines: the last, which noise never reaches. */
const [ALPHA_DRAW, CHOICE_DRAW] = [LIMIT - 1, LIMIT - 2];

/** |∂ score / ∂ value| [N, T, …] (Simonyan, Vedaldi, Zisserman 2013, arXiv:1312.6034). */
export async function saliency(work) {
  const maps = await work.sum();
  return numbers(maps.data.map(Math.abs), maps.dims);
}

/** value · ∂ score / ∂ value [N, T, …] (Shrikumar et al. 2016, arXiv:1605.01713). */
export async function inputXGradient(work) {
  const maps = await work.sum();
  const values = await work.values();
  const [count, targets] = work.leading;
  const size = product(values.dims.slice(1));
  const data = new Float32Array(maps.data.length);
  for (let map = 0; map < count * targets; map++) {
    const from = Math.floor(map / targets) * size;
    for (let place = 0; place < size; place++)
      data[map * size + place] = values.data[from + place] * maps.data[map * size + place];
  }
  return numbers(data, maps.dims);
}

/**
 * (x − b)·Σ_k w_k g(b + α_k (x − b)) [N, T, …], the mean over all baselines b.
 *
 * Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks (2017, arXiv:1703.01365).
 */
export async function integratedGradients(work) {
  return overBaselines(work, tableOf(pointsOf(work.parameters.rule, work.parameters.steps)));
}

/** The mean integrated gradients [N, T, …] of noisy copies x + σ·z of the image, and over all baselines. */
export async function smoothgradIntegrated(work) {
  const { rule, steps, samples } = work.parameters;
  const points = pointsOf(rule, steps);
  const rows = range(samples).flatMap((draw) => points.map(([alpha, weight]) => [draw, alpha, weight / samples, 1]));
  return overBaselines(work, tableOf(rows), { sigma: deviationsOf(await work.values(), work.parameters) });
}

/**
 * The mean over the method's baselines of the sum over a table of steps, [N, T, …]. It is not divided by the weights: a
 * rule whose weights don't add up to 1 means them so.
 */
async function overBaselines(work, steps, feeds = {}) {
  const { baseline: value, baselines: draws, seed } = work.parameters;
  const values = await work.values();
  const count = numberOfBaselines(value, values, draws);
  const quiet = work.withParameters({ baseline: 0 });
  const mean = new Mean(count);
  for (const baseline of baselines(value, values, work.bundle, draws, seed)) {
    const shown = mean.shown();
    const [sum] = await quiet.sums(["total"], { steps, share: 1 / count, feeds: { baseline, ...feeds }, shown });
    mean.add(sum);
  }
  return mean.finished();
}

/** A sum of maps in float64, divided by a number in the end. */
export class Mean {
  constructor(count) {
    [this.count, this.total] = [count, null];
  }

  add(sum) {
    if (this.total === null) this.total = numbers(Float64Array.from(sum.data), sum.dims);
    else sum.data.forEach((value, place) => (this.total.data[place] += value));
  }

  /** The map of the images from `first` up to `past` with a part of the next sum, to be shown. */
  shown() {
    return ([part], [first, past]) =>
      this.total === null ? part : added([part], [rowsOf(this.total, first, past)])[0];
  }

  finished() {
    return numbers(
      Float32Array.from(this.total.data, (value) => value / this.count),
      this.total.dims,
    );
  }
}

/**
 * The mean of (x̃ − b)·g(b + α (x̃ − b)) over random baselines b and α between 0 and 1 [N, T, …]; x̃ = x + σ·z.
 *
 * Erion et al.: Improving performance of deep learning models with axiomatic attribution priors and expected gradients
 * (2021, arXiv:1906.10670); with noise it is Captum's GradientShap.
 */
export async function expectedGradients(work) {
  const { baseline: value, samples, seed, noise } = work.parameters;
  const values = await work.values();
  const { alpha, chosen } = expectedDraws(samples, numberOfBaselines(value, values, samples), seed, value === "random");
  const sigma = noise ? deviationsOf(values, work.parameters) : null;
  const quiet = work.withParameters({ baseline: 0 });
  const mean = new Mean(samples);
  let number = 0;
  for (const baseline of baselines(value, values, work.bundle, samples, seed)) {
    const draws = range(samples).filter((draw) => chosen[draw] === number);
    number += 1;
    if (!draws.length) continue;
    const rows = draws.map((draw) => (sigma ? [draw, alpha[draw], 1, 1] : [alpha[draw], 1]));
    const graph = sigma ? "noise" : "path";
    const feeds = sigma ? { baseline, sigma } : { baseline };
    const share = draws.length / samples;
    const [sum] = await quiet.sums(["total"], { steps: tableOf(rows), graph, share, feeds, shown: mean.shown() });
    mean.add(sum);
  }
  return mean.finished();
}

/** The point α and the number of the baseline of every sample; `fresh` gives each its own. */
export function expectedDraws(samples, count, seed, fresh) {
  const found = uniform(seed, [ALPHA_DRAW, CHOICE_DRAW], [samples]);
  const choice = found.subarray(samples);
  return {
    alpha: found.subarray(0, samples),
    chosen: range(samples).map((draw) => (fresh ? draw : Math.floor(Math.fround(choice[draw] * count)))),
  };
}
