/**
 * What stands for "nothing there": the values of `baseline` and `fill` in the network's own input.
 *
 * A number is taken as it is. "black" and "white" are such pictures after preprocessing; "mean" is each image's own
 * mean colour; "blur" is the image blurred until its details are gone; "random" is drawn evenly between each image's
 * own minimum and maximum.
 */

import { ParameterError, listText, quoted } from "./errors.js";
import { broadcastsTo, numbers, product, roundEven, rowsOf, sameDims } from "./numbers.js";
import { spatialAxes } from "./images.js";
import { prepare } from "./preprocessing.js";
import { LIMIT, uniform } from "./random.js";

// A blur's deviation as a share of the shorter side: 11 pixels at 224, about Fong & Vedaldi's 10 (2017,
// arXiv:1704.03296).
const BLUR = 0.05;
/** The draw number of the first random baseline: far from those of the noise, so that one seed serves both. */
const RANDOM_DRAWS = LIMIT / 2;

/** Values of the images' rank that broadcast to `rows` [N, …]: first axis 1, or N where each image has its own. */
export function fillValues(name, value, rows, bundle, seed = 0) {
  if (typeof value === "string") {
    if (value === "random") return randomFill(rows, seed, 0);
    // A single file that takes pictures calls the image, which it makes inside, its explained value.
    if (bundle.inside && bundle.inside.name !== bundle.image.name && name === "baseline") {
      throw new ParameterError(
        `${name}=${quoted(value)} is a picture, but ${quoted(bundle.inside.name)} lies inside the network; give a ` +
          "number or an array, such as explainer.values(...) of a neutral input",
      );
    }
    return NAMED[value](rows, bundle);
  }
  const array = asArray(value);
  if (!broadcastsTo(array.dims, rows.dims)) {
    throw new ParameterError(
      `${name} of shape ${listText(array.dims)} does not broadcast to the images' ${listText(rows.dims)}`,
    );
  }
  return numbers(array.data, [...Array(rows.dims.length - array.dims.length).fill(1), ...array.dims]);
}

function asArray(value) {
  return typeof value === "number" ? numbers(Float32Array.of(value), []) : value;
}

/** Values [N, …] drawn evenly between the minimum and the maximum of each image; all have the same pattern. */
export function randomFill(rows, seed, draw) {
  const size = product(rows.dims.slice(1));
  const pattern = uniform(seed, [RANDOM_DRAWS + draw], rows.dims.slice(1));
  const data = new Float32Array(rows.data.length);
  for (let image = 0; image < rows.dims[0]; image++) {
    const [low, high] = boundsOf(rows.data, image * size, size);
    const width = Math.fround(high - low);
    for (let place = 0; place < size; place++) data[image * size + place] = low + Math.fround(pattern[place] * width);
  }
  return numbers(data, rows.dims);
}

/** The smallest and the largest of some numbers. */
export function boundsOf(data, first, count) {
  let [low, high] = [data[first], data[first]];
  for (let place = first + 1; place < first + count; place++) {
    const value = data[place];
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

/** How many baselines `baselines` gives: `draws` of "random", those of an array of several, or 1. */
export function numberOfBaselines(value, rows, draws) {
  if (typeof value === "string") return value === "random" ? draws : 1;
  return several(asArray(value), rows).length;
}

/**
 * The baselines of images `rows` [N, …] one after the other, each [1 or N, …] as from fillValues. "random" is drawn
 * `draws` times. An array is one baseline for all images [*image], one for each [N, *image], several for all [B,
 * *image] (B other than N) or [1, B, *image], or several for each [N, B, *image].
 */
export function* baselines(value, rows, bundle, draws = 1, seed = 0) {
  if (value === "random") {
    for (let draw = 0; draw < draws; draw++) yield randomFill(rows, seed, draw);
  } else if (typeof value === "string") {
    yield fillValues("baseline", value, rows, bundle);
  } else {
    for (const one of several(asArray(value), rows)) yield fillValues("baseline", one, rows, bundle);
  }
}

/** An array of baselines as a list, each of which broadcasts to the images. */
function several(array, rows) {
  const [count, ...image] = rows.dims;
  const { dims } = array;
  if (
    dims.length === rows.dims.length + 1 &&
    [1, count].includes(dims[0]) &&
    dims[1] &&
    sameDims(dims.slice(2), image)
  ) {
    return Array.from({ length: dims[1] }, (_, number) => column(array, number));
  }
  if (dims.length === rows.dims.length && ![0, 1, count].includes(dims[0]) && sameDims(dims.slice(1), image)) {
    return Array.from({ length: dims[0] }, (_, number) => {
      const one = rowsOf(array, number, number + 1);
      return numbers(one.data, image);
    });
  }
  if (broadcastsTo(dims, rows.dims)) return [array];
  const axes = image.join(", ");
  throw new ParameterError(
    `baseline of shape ${listText(dims)} fits no image here; give [${axes}] for all, [${count}, ${axes}] for each, ` +
      `[1, B, ${axes}] for several for all, or [${count}, B, ${axes}] for several for each`,
  );
}

function column(array, number) {
  const [count, columns, ...rest] = array.dims;
  const size = product(rest);
  const data = new Float32Array(count * size);
  for (let row = 0; row < count; row++) {
    const from = (row * columns + number) * size;
    data.set(array.data.subarray(from, from + size), row * size);
  }
  return numbers(data, [count, ...rest]);
}

function uniformPicture(level, rows, bundle) {
  if (!bundle.steps.length) {
    throw new ParameterError('"black" and "white" need a bundle with preprocessing; give the number instead');
  }
  const [height, width] = spatialAxes(bundle.image.layout, rows).map((axis) => rows.dims[axis]);
  const data = new Uint8Array(height * width * 3).fill(level);
  const made = prepare({ data, height, width, channels: 3 }, bundle.steps).rows;
  return numbers(made.data, [1, ...made.dims]);
}

/** Each image's mean colour, [N, C, 1, 1] or [N, 1, 1, C]. */
function meanColour(rows, bundle) {
  const axes = spatialAxes(bundle.image.layout, rows);
  const dims = rows.dims.map((size, axis) => (axes.includes(axis) ? 1 : size));
  const sums = new Float64Array(product(dims));
  eachPlane(rows, axes, (plane, at) => {
    for (const place of at) sums[plane] += rows.data[place];
  });
  const size = rows.dims[axes[0]] * rows.dims[axes[1]];
  return numbers(
    Float32Array.from(sums, (sum) => sum / size),
    dims,
  );
}

/** OpenCV's GaussianBlur with its own kernel size for a deviation, borders reflected. */
function blur(rows, bundle) {
  const axes = spatialAxes(bundle.image.layout, rows);
  const [height, width] = axes.map((axis) => rows.dims[axis]);
  const kernel = gaussianKernel(BLUR * Math.min(height, width));
  const data = new Float32Array(rows.data.length);
  eachPlane(rows, axes, (_, at) => {
    const plane = Float64Array.from(at, (place) => rows.data[place]);
    const across = filtered(plane, height, width, 1, kernel);
    const down = filtered(across, width, height, width, kernel);
    at.forEach((place, pixel) => {
      data[place] = down[pixel];
    });
  });
  return numbers(data, rows.dims);
}

function gaussianKernel(sigma) {
  const size = roundEven(sigma * 8 + 1) | 1;
  const weights = Array.from({ length: size }, (_, place) =>
    Math.exp(-((place - (size - 1) / 2) ** 2) / (2 * sigma ** 2)),
  );
  const sum = weights.reduce((all, weight) => all + weight, 0);
  return Float32Array.from(weights, (weight) => weight / sum);
}

/** Lines of a plane filtered, each of `length` pixels with `step` between them. */
function filtered(plane, lines, length, step, kernel) {
  const between = step === 1 ? length : 1;
  const half = (kernel.length - 1) / 2;
  const made = new Float64Array(plane.length);
  const sources = Array.from({ length: length + 2 * half }, (_, place) => reflected(place - half, length));
  for (let line = 0; line < lines; line++) {
    for (let place = 0; place < length; place++) {
      let sum = 0;
      for (let tap = 0; tap < kernel.length; tap++)
        sum += kernel[tap] * plane[line * between + sources[place + tap] * step];
      made[line * between + place * step] = Math.fround(sum);
    }
  }
  return made;
}

function reflected(place, length) {
  const period = 2 * length;
  const inside = ((place % period) + period) % period;
  return inside < length ? inside : period - 1 - inside;
}

/** Calls `visit` for each plane of a batch with its number and the places of its pixels, row by row. */
function eachPlane(rows, [heightAxis], visit) {
  const [count] = rows.dims;
  const planar = heightAxis === 2;
  const [channels, height, width] = planar ? rows.dims.slice(1) : [rows.dims[3], rows.dims[1], rows.dims[2]];
  const size = height * width;
  for (let plane = 0; plane < count * channels; plane++) {
    const [image, channel] = [Math.floor(plane / channels), plane % channels];
    const start = planar ? plane * size : image * size * channels + channel;
    visit(
      plane,
      Int32Array.from({ length: size }, (_, pixel) => start + pixel * (planar ? 1 : channels)),
    );
  }
}

const NAMED = {
  black: (rows, bundle) => uniformPicture(0, rows, bundle),
  white: (rows, bundle) => uniformPicture(255, rows, bundle),
  mean: meanColour,
  blur,
};
