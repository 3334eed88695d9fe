/**
 * What scores of masked images say about the segments: KernelSHAP, LIME, Sobol indices, HSIC.
 *
 * A solver makes a design, the states [K, S] in which the S segments are shown (1 kept, 0 replaced), and turns the
 * scores [K, M] of the masked images, a column for each image and target, into values [S, M]. All draws come from
 * random.js.
 */

import { BundleError, ParameterError, unknown } from "./errors.js";
import { leastSquares } from "./linear_algebra.js";
import { argsort, numbers, range } from "./numbers.js";
import { uniform } from "./random.js";

/** How many scores the median distance of HSIC is taken over: all pairs of them. */
const MEDIAN_OF = 1000;

/** The solver that a method's finish rule names; BundleError for one that this version doesn't know. */
export function findSolver(name) {
  if (name in SOLVERS) return SOLVERS[name];
  throw new BundleError(`${unknown("solver", name, Object.keys(SOLVERS))}; pip install --upgrade onnxplain`);
}

/**
 * The design of KernelSHAP: the empty coalition, the full one, then at most `samples` others. Sizes 1 and S − 1, 2 and
 * S − 2, … are shown completely as long as their share of the Shapley kernel pays for it; of the others, pairs of a
 * coalition and its complement are drawn from the kernel. 2^S − 2 samples show everything, and the values are exact.
 *
 * Lundberg, Lee (2017, arXiv:1705.07874); pairs: Covert, Lee (2021, arXiv:2012.01536).
 */
function coalitions(parameters, segments) {
  let { samples } = parameters;
  const least = Math.min(2 * segments, 2 ** Math.min(segments, 40) - 2);
  if (samples < least) {
    throw new ParameterError(
      `kernel_shap: samples=${samples} are too few for ${segments} segments; give at least ${least}`,
    );
  }
  const shown = [Array(segments).fill(0), Array(segments).fill(1)];
  const weights = [0, 0];
  const mass = new Map(range(Math.floor(segments / 2)).map((k) => [k + 1, pairMass(k + 1, segments)]));
  const total = () => [...mass.values()].reduce((all, part) => all + part, 0);
  for (const size of [...mass.keys()]) {
    const both = 2 * size === segments ? 1 : 2;
    const number = both * choose(segments, size);
    if (samples * mass.get(size) < (number - 1e-9) * total()) break;
    const kept = subsets(segments, size);
    shown.push(...kept);
    if (both === 2) shown.push(...kept.map(complement));
    weights.push(...Array(number).fill(mass.get(size) / number));
    mass.delete(size);
    samples -= number;
  }
  if (mass.size && samples >= 2) {
    const drawn = drawnPairs(parameters.seed, Math.floor(samples / 2), segments, mass);
    shown.push(...drawn);
    weights.push(...Array(drawn.length).fill(total() / drawn.length));
  }
  return designOf(shown, weights);
}

const complement = (states) => states.map((state) => 1 - state);

function designOf(rows, weights) {
  const segments = rows[0].length;
  const data = new Float32Array(rows.length * segments);
  rows.forEach((row, place) => data.set(row, place * segments));
  return { states: numbers(data, [rows.length, segments]), weights };
}

/** The Shapley kernel's mass on all coalitions of a size and of its complement's. */
function pairMass(size, segments) {
  return ((2 * size === segments ? 1 : 2) * (segments - 1)) / (size * (segments - size));
}

function choose(n, k) {
  let found = 1;
  for (let i = 1; i <= k; i++) found = (found * (n - k + i)) / i;
  return Math.round(found);
}

/** The states of all subsets of a size, in the order of their members. */
function subsets(segments, size) {
  const members = range(size);
  const found = [];
  for (;;) {
    const states = Array(segments).fill(0);
    for (const member of members) states[member] = 1;
    found.push(states);
    let place = size - 1;
    while (place >= 0 && members[place] === segments - size + place) place -= 1;
    if (place < 0) return found;
    members[place] += 1;
    for (let after = place + 1; after < size; after++) members[after] = members[after - 1] + 1;
  }
}

/** Coalitions of sizes drawn by their mass, each followed by its complement. */
function drawnPairs(seed, pairs, segments, mass) {
  const noise = uniform(seed, range(pairs), [segments + 1]);
  const sizes = [...mass.keys()];
  const edges = [];
  for (const part of mass.values()) edges.push((edges.at(-1) ?? 0) + part);
  return range(pairs).flatMap((pair) => {
    const own = noise.subarray(pair * (segments + 1), (pair + 1) * (segments + 1));
    const place = own[segments] * edges.at(-1);
    const size = sizes[edges.findIndex((edge) => edge >= place)];
    const states = ranksOf(own.subarray(0, segments)).map((rank) => (rank < size ? 1 : 0));
    return [states, complement(states)];
  });
}

/** The place of each number in the order from small to large, equal ones as they come. */
function ranksOf(values) {
  const ranks = Array(values.length);
  argsort(values).forEach((place, rank) => {
    ranks[place] = rank;
  });
  return ranks;
}

/** The weighted least squares fit whose values add up to the difference of the full and the empty coalition. */
function shapleyValues({ states, weights }, scores) {
  const [count, segments] = states.dims;
  const columns = scores.dims[1];
  const [empty, full] = [scores.data.subarray(0, columns), scores.data.subarray(columns, 2 * columns)];
  const matrix = new Float64Array(count * (segments - 1));
  const sides = new Float64Array(count * columns);
  for (let row = 0; row < count; row++) {
    const root = Math.sqrt(weights[row]);
    // The last value is the gain less the others: one unknown less, and no constraint.
    const last = states.data[(row + 1) * segments - 1];
    for (let s = 0; s < segments - 1; s++)
      matrix[row * (segments - 1) + s] = root * (states.data[row * segments + s] - last);
    for (let c = 0; c < columns; c++) {
      sides[row * columns + c] = root * (scores.data[row * columns + c] - empty[c] - last * (full[c] - empty[c]));
    }
  }
  const others = leastSquares(matrix, sides, count, segments - 1, columns);
  const found = new Float64Array(segments * columns);
  found.set(others);
  for (let c = 0; c < columns; c++) {
    let rest = full[c] - empty[c];
    for (let s = 0; s < segments - 1; s++) rest -= others[s * columns + c];
    found[(segments - 1) * columns + c] = rest;
  }
  return found;
}

/**
 * The design of LIME: the picture itself, then segments kept with probability 1/2; weights exp(−D² / width²). D is the
 * cosine distance to the picture itself, or the Euclidean one as a share of the largest.
 *
 * Ribeiro, Singh, Guestrin: "Why should I trust you?" (2016, arXiv:1602.04938).
 */
function coinFlips({ samples, seed, distance, width }, segments) {
  const data = uniform(seed, range(samples), [segments])
    .map((value) => (value < 0.5 ? 1 : 0))
    .fill(1, 0, segments);
  const weights = range(samples).map((row) => {
    const kept = data.subarray(row * segments, (row + 1) * segments).reduce((all, state) => all + state, 0) / segments;
    const apart = distance === "cosine" ? 1 - Math.sqrt(kept) : Math.sqrt(1 - kept);
    return Math.exp(-((apart / width) ** 2));
  });
  return { states: numbers(data, [samples, segments]), weights };
}

/** The slopes of a weighted ridge regression with a free intercept. */
function ridgeValues({ states, weights }, scores, { ridge }) {
  const [count, segments] = states.dims;
  const columns = scores.dims[1];
  const whole = weights.reduce((all, weight) => all + weight, 0);
  const shares = weights.map((weight) => weight / whole);
  const centred = centredBy(states.data, shares, count, segments);
  const sides = centredBy(scores.data, shares, count, columns);
  const matrix = new Float64Array(segments * segments);
  const right = new Float64Array(segments * columns);
  for (let row = 0; row < count; row++) {
    for (let s = 0; s < segments; s++) {
      const weight = shares[row] * centred[row * segments + s];
      for (let t = 0; t < segments; t++) matrix[s * segments + t] += weight * centred[row * segments + t];
      for (let c = 0; c < columns; c++) right[s * columns + c] += weight * sides[row * columns + c];
    }
  }
  for (let s = 0; s < segments; s++) matrix[s * segments + s] += ridge / whole;
  return leastSquares(matrix, right, segments, segments, columns);
}

function centredBy(data, shares, count, columns) {
  const means = new Float64Array(columns);
  for (let at = 0; at < count * columns; at++) means[at % columns] += shares[Math.floor(at / columns)] * data[at];
  return Float64Array.from(data, (value, at) => value - means[at % columns]);
}

/**
 * `count` points in (0, 1) for each column: one in every interval of length 1 / count. Column c takes draw 2c for the
 * order of the intervals and draw 2c + 1 for the places within. McKay, Beckman, Conover (1979).
 */
function latinHypercube(seed, columns, count) {
  const order = uniform(
    seed,
    columns.map((column) => 2 * column),
    [count],
  );
  const inside = uniform(
    seed,
    columns.map((column) => 2 * column + 1),
    [count],
  );
  return columns.map((_, place) => {
    const ranks = ranksOf(order.subarray(place * count, (place + 1) * count));
    return ranks.map((rank, point) => (rank + inside[place * count + point]) / count);
  });
}

/**
 * The design of Sobol's indices: points A, then for every segment A with that segment's column taken from B.
 *
 * Fel et al.: Look at the variance! (2021, arXiv:2111.04138), with a Latin hypercube for Sobol's sequence.
 */
function replicated({ designs, seed }, segments) {
  const [first, second] = [0, 1].map((which) =>
    latinHypercube(
      seed,
      range(segments).map((s) => 2 * s + which),
      designs,
    ),
  );
  const data = new Float32Array((segments + 1) * designs * segments);
  for (let at = 0; at < data.length; at++) {
    const [part, point, s] = [
      Math.floor(at / (designs * segments)),
      Math.floor(at / segments) % designs,
      at % segments,
    ];
    data[at] = (part === s + 1 ? second : first)[s][point];
  }
  return { states: numbers(data, [(segments + 1) * designs, segments]), weights: [] };
}

/**
 * Total-order Sobol indices by Jansen's estimator (1999), over the variance of all scores; 0 where they never change.
 */
function totalIndices({ states }, scores) {
  const segments = states.dims[1];
  const [count, columns] = scores.dims;
  const designs = count / (segments + 1);
  const found = new Float64Array(segments * columns);
  for (let c = 0; c < columns; c++) {
    const of = (part, point) => scores.data[(part * designs + point) * columns + c];
    const own = range(count).map((row) => scores.data[row * columns + c]);
    const mean = own.reduce((all, value) => all + value, 0) / count;
    const variance = own.reduce((all, value) => all + (value - mean) ** 2, 0) / (count - 1);
    for (let s = 0; s < segments; s++) {
      let squares = 0;
      for (let point = 0; point < designs; point++) squares += (of(s + 1, point) - of(0, point)) ** 2;
      found[s * columns + c] = variance > 0 ? squares / designs / 2 / variance : 0;
    }
  }
  return found;
}

/**
 * The design of HSIC: a binary Latin hypercube, each segment shown in half of the images.
 *
 * Novello, Fel, Vigouroux: Making sense of dependence (2022, arXiv:2206.06219).
 */
function halves({ samples, seed }, segments) {
  const points = latinHypercube(seed, range(segments), samples);
  const data = Float32Array.from({ length: samples * segments }, (_, at) =>
    points[at % segments][Math.floor(at / segments)] < 0.5 ? 1 : 0,
  );
  return { states: numbers(data, [samples, segments]), weights: [] };
}

/**
 * HSIC = tr(K H L H) / K² of each segment's state and the score. The kernel of the states is 1 where they are equal,
 * else 0; that of the scores Gaussian, with their median distance as its width (Gretton et al. 2005).
 */
function dependence({ states }, scores) {
  const [count, segments] = states.dims;
  const columns = scores.dims[1];
  // Centred, the kernel of binary states is 2 x̃ x̃ᵀ, so no matrix is needed for each segment.
  const centred = centredBy(states.data, Array(count).fill(1 / count), count, segments);
  const found = new Float64Array(segments * columns);
  for (let c = 0; c < columns; c++) {
    const own = Float64Array.from({ length: count }, (_, row) => scores.data[row * columns + c]);
    oneDependence(centred, own, segments).forEach((value, s) => {
      found[s * columns + c] = value;
    });
  }
  return found;
}

function oneDependence(states, scores, segments) {
  const count = scores.length;
  const width = widthOf(scores.subarray(0, MEDIAN_OF));
  const sums = new Float64Array(segments);
  if (!width) return sums;
  const line = new Float64Array(segments);
  for (let row = 0; row < count; row++) {
    line.fill(0);
    for (let other = 0; other < count; other++) {
      const weight = Math.exp(-((scores[row] - scores[other]) ** 2) / (2 * width ** 2));
      for (let s = 0; s < segments; s++) line[s] += weight * states[other * segments + s];
    }
    for (let s = 0; s < segments; s++) sums[s] += states[row * segments + s] * line[s];
  }
  return sums.map((value) => (2 * value) / count ** 2);
}

/** The median distance of some scores, or the mean one where that is 0. */
function widthOf(scores) {
  const distances = new Float64Array((scores.length * (scores.length - 1)) / 2);
  let place = 0;
  for (let first = 0; first < scores.length; first++) {
    for (let other = first + 1; other < scores.length; other++)
      distances[place++] = Math.abs(scores[other] - scores[first]);
  }
  distances.sort();
  const half = Math.floor(distances.length / 2);
  const median = distances.length % 2 ? distances[half] : (distances[half - 1] + distances[half]) / 2;
  return median || distances.reduce((all, value) => all + value, 0) / distances.length;
}

/** The solvers by the name that a method's finish rule gives. */
const SOLVERS = {
  shapley: { design: coalitions, solve: shapleyValues },
  ridge: { design: coinFlips, solve: ridgeValues },
  total_indices: { design: replicated, solve: totalIndices },
  dependence: { design: halves, solve: dependence },
};
