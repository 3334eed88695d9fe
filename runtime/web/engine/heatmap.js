/** Attributions as pictures: heat maps, signed maps, and either over its picture. */

import { TABLES } from "./colour_tables.js";
import { ParameterError, listText, quoted, unknown } from "./errors.js";
import { numbers, product, roundEven } from "./numbers.js";
import { interpolationMatrix, resize } from "./resize.js";

const LAYOUTS = ["NCHW", "NHWC"];
export const COLOUR_MAPS = ["inferno", "turbo", "viridis", "magma", "plasma", "cividis", "hot", "jet", "bone"];
// Negative to positive, through white: ColorBrewer's RdBu turned round (colorbrewer2.org, Apache-2.0).
const DIVERGING = [
  [5, 48, 97],
  [67, 147, 195],
  [209, 229, 240],
  [255, 255, 255],
  [253, 219, 199],
  [214, 96, 77],
  [103, 0, 31],
];
// ITU-R 601, as the grey of OpenCV.
const LUMA = [0.299, 0.587, 0.114];

// How the channels of an attribution become one number a pixel.
const REDUCTIONS = {
  absolute_sum: (values) => values.reduce((sum, value) => sum + Math.abs(value), 0),
  absolute_maximum: (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0),
  signed_sum: (values) => values.reduce((sum, value) => sum + value, 0),
  mean: (values) => values.reduce((sum, value) => sum + value, 0) / values.length,
};

/**
 * float32 [..., H, W] in 0..1 from an attribution [..., C, H, W] ("NCHW") or [..., H, W, C] ("NHWC"): absolute values
 * are summed over the channels; each image's smallest sum becomes 0 and its 99th percentile 1 (the largest where that
 * equals the smallest). A constant map gives zeros. ParameterError for NaN or infinity.
 */
export function heatmap(attribution, layout = "NCHW", options = {}) {
  const { percentile = 99, statistic = "linear", reduction = "absolute_sum" } = options;
  return eachMap(reduced(attribution, layout, reduction), (map, found) => {
    const sorted = map.slice().sort();
    const low = sorted[0];
    let high = percentileOf(sorted, percentile, statistic);
    if (!(high > low)) high = sorted.at(-1);
    const span = high > low ? high - low : 1;
    map.forEach((value, place) => {
      found[place] = Math.min(Math.max((value - low) / span, 0), 1);
    });
  });
}

/**
 * float32 [..., H, W] in −1..1: channels are summed with their sign; 1 is each image's 99th percentile of the absolute
 * sum (the largest where that is 0), −1 the same below, and 0 stays 0. ParameterError for NaN or infinity.
 */
export function signedMap(attribution, layout = "NCHW", percentile = 99) {
  return eachMap(reduced(attribution, layout, "signed_sum"), (map, found) => {
    const sorted = map.map(Math.abs).sort();
    let high = percentileOf(sorted, percentile, "linear");
    if (!(high > 0)) high = sorted.at(-1) || 1;
    map.forEach((value, place) => {
      found[place] = Math.min(Math.max(value / high, -1), 1);
    });
  });
}

function eachMap({ data, dims }, draw) {
  const found = new Float32Array(data.length);
  const size = dims.at(-1) * dims.at(-2);
  for (let at = 0; at < data.length; at += size) draw(data.subarray(at, at + size), found.subarray(at, at + size));
  return numbers(found, dims);
}

/** One number a pixel, float64 [..., H, W]. */
function reduced(attribution, layout, reduction) {
  if (!(reduction in REDUCTIONS)) throw new ParameterError(unknown("reduction", reduction, Object.keys(REDUCTIONS)));
  const { data, dims } = attribution;
  check(data, dims, layout);
  const planes = layout === "NCHW";
  const [channels, height, width] = planes ? dims.slice(-3) : [dims.at(-1), ...dims.slice(-3, -1)];
  const size = height * width;
  const count = data.length / (size * channels);
  const found = new Float64Array(count * size);
  const values = new Float64Array(channels);
  for (let pixel = 0; pixel < found.length; pixel++) {
    const [map, place] = [Math.floor(pixel / size), pixel % size];
    const start = planes ? map * channels * size + place : pixel * channels;
    for (let c = 0; c < channels; c++) values[c] = data[start + c * (planes ? size : 1)];
    found[pixel] = REDUCTIONS[reduction](values);
  }
  return numbers(found, [...dims.slice(0, -3), height, width]);
}

function check(data, dims, layout) {
  if (!LAYOUTS.includes(layout)) throw new ParameterError(unknown("layout", String(layout), LAYOUTS));
  if (dims.length < 3 || data.length === 0) {
    throw new ParameterError(`an attribution of shape ${listText(dims)} has no height and width to draw`);
  }
  const bad = data.reduce((count, value) => count + (Number.isFinite(value) ? 0 : 1), 0);
  if (bad) {
    throw new ParameterError(`the attribution has ${bad} values that are NaN or infinite; no map can be drawn from it`);
  }
}

/** The percentile of sorted numbers, with numpy's rounding. */
function percentileOf(sorted, percentile, statistic) {
  if (!(percentile > 0 && percentile <= 100)) {
    throw new ParameterError(`percentile must be above 0 and at most 100, not ${percentile}`);
  }
  const place = (sorted.length - 1) * (percentile / 100);
  const below = Math.floor(place);
  if (statistic === "lower") return sorted[below];
  if (statistic !== "linear") throw new ParameterError(unknown("statistic", statistic, ["linear", "lower"]));
  const [low, high] = [sorted[below], sorted[Math.min(below + 1, sorted.length - 1)]];
  const share = place - below;
  return share >= 0.5 ? high - (high - low) * (1 - share) : low + (high - low) * share;
}

/**
 * The picture `seen`, RGB bytes [H, W, 3], in darkened grey with `heat` [H, W] (0..1) glowing over it: RGB, or RGBA
 * with `channels` 4. Colour covers the picture as far as there is heat, `strength` (0..1) at most.
 */
export function overlay(seen, heat, { colourMap = "inferno", strength = 0.85, channels = 3 } = {}) {
  checkOverlay(seen, heat, strength);
  const table = tableOf(colourMap);
  return painted(seen, channels, (pixel, grey, c) => {
    const warmth = Math.min(Math.max(heat.data[pixel], 0), 1);
    // Colour is added, as light, over a picture that fades with the heat: weak heat tints it and never darkens it. The
    // first fifth fades in for colour maps that don't start at black.
    const light = table[3 * roundEven(warmth * 255) + c] * Math.min(5 * warmth, 1);
    return grey * (1 - 0.35 * strength) * (1 - strength * warmth) + light * strength;
  });
}

/** The picture `seen` in pale grey under the colours of `share` [H, W] (−1..1): red speaks for the target. */
export function signedOverlay(seen, share, { strength = 0.85, channels = 3 } = {}) {
  checkOverlay(seen, share, strength);
  return painted(seen, channels, (pixel, grey, c) => {
    const value = Math.min(Math.max(share.data[pixel], -1), 1);
    // Pale, so that either sign's colour is darker than any of the picture.
    const pale = 255 - (255 - grey) * (1 - 0.65 * strength);
    const covered = strength * Math.abs(value) ** 0.75;
    // The weak end of the scale is nearly white and its strong end nearly black: colour comes from between.
    const colour = divergingColour(Math.sign(value) * (0.4 + 0.45 * Math.abs(value)), c);
    return pale * (1 - covered) + colour * covered;
  });
}

function painted(seen, channels, paint) {
  const [height, width] = seen.dims;
  const data = new Uint8ClampedArray(height * width * channels).fill(255);
  for (let pixel = 0; pixel < height * width; pixel++) {
    const at = 3 * pixel;
    const grey = seen.data[at] * LUMA[0] + seen.data[at + 1] * LUMA[1] + seen.data[at + 2] * LUMA[2];
    for (let c = 0; c < 3; c++) {
      data[channels * pixel + c] = roundEven(Math.min(Math.max(paint(pixel, grey, c), 0), 255));
    }
  }
  return numbers(data, [height, width, channels]);
}

function checkOverlay(seen, heat, strength) {
  if (seen.dims[0] !== heat.dims[0] || seen.dims[1] !== heat.dims[1] || heat.dims.length !== 2) {
    throw new ParameterError(
      `a map of ${listText(heat.dims)} doesn't fit a picture of ${listText(seen.dims.slice(0, -1))}`,
    );
  }
  if (!(strength >= 0 && strength <= 1)) throw new ParameterError(`strength must be between 0 and 1, not ${strength}`);
}

/**
 * The overlay on the `original` picture, [H, W, 3]; what the network didn't see has no heat. `heat` is [h, w]; `box` is
 * the part of the original that it covers, top, left, bottom, right in the original's pixels.
 */
export function overlayOriginal(original, heat, box, options = {}) {
  return overlay(original, atOriginal(original, heat, box), options);
}

function atOriginal({ dims: [height, width] }, heat, [top, left, bottom, right]) {
  const rows = covering(height, heat.dims[0], top, bottom);
  const columns = covering(width, heat.dims[1], left, right);
  const [h, w] = heat.dims;
  const between = new Float64Array(height * w);
  for (let row = 0; row < height; row++) {
    for (let source = 0; source < h; source++) {
      const weight = rows[row * h + source];
      if (weight === 0) continue;
      for (let column = 0; column < w; column++) between[row * w + column] += weight * heat.data[source * w + column];
    }
  }
  const data = new Float64Array(height * width);
  const taps = Array.from({ length: width }, (_, column) => nonZero(columns.subarray(column * w, (column + 1) * w)));
  for (let row = 0; row < height; row++) {
    taps.forEach((line, column) => {
      let sum = 0;
      for (const [source, weight] of line) sum += between[row * w + source] * weight;
      data[row * width + column] = Math.min(Math.max(sum, 0), 1);
    });
  }
  return numbers(data, [height, width]);
}

const nonZero = (weights) =>
  Array.from(weights, (weight, place) => [place, weight]).filter(([, weight]) => weight !== 0);

/** The weights that take a line of `source` pixels, lying from `start` to `end`, to a line of `target`. */
function covering(target, source, start, end) {
  const perPixel = source / (end - start);
  const line = [-start * perPixel, (target - start) * perPixel];
  const matrix = interpolationMatrix(source, target, "bilinear", true, line);
  for (let place = 0; place < target; place++) {
    const inside = place + 0.5 >= start && place + 0.5 < end;
    if (!inside) matrix.fill(0, place * source, (place + 1) * source);
  }
  return matrix;
}

/** A map [h, w], that of a layer inside perhaps, as [height, width]: bilinear, centres at half-integers. */
export function atSize(map, height, width) {
  if (map.dims[0] === height && map.dims[1] === width) return map;
  const picture = { data: map.data, height: map.dims[0], width: map.dims[1], channels: 1 };
  return numbers(resize(picture, height, width, { rounded: false }).data, [height, width]);
}

/** RGB bytes [..., 3] for numbers in 0..1. */
export function colours(heat, colourMap = "inferno") {
  const table = tableOf(colourMap);
  const data = new Uint8ClampedArray(3 * product(heat.dims));
  heat.data.forEach((value, place) => {
    const at = 3 * roundEven(Math.min(Math.max(value, 0), 1) * 255);
    data.set(table.subarray(at, at + 3), 3 * place);
  });
  return numbers(data, [...heat.dims, 3]);
}

/** RGB bytes [..., 3] for numbers in −1..1: blue, white at 0, red. */
export function diverging(share) {
  const data = new Uint8ClampedArray(3 * product(share.dims));
  share.data.forEach((value, place) => {
    for (let c = 0; c < 3; c++) data[3 * place + c] = divergingColour(value, c);
  });
  return numbers(data, [...share.dims, 3]);
}

function divergingColour(value, channel) {
  const position = ((Math.min(Math.max(value, -1), 1) + 1) / 2) * (DIVERGING.length - 1);
  const below = Math.min(Math.floor(position), DIVERGING.length - 2);
  const [low, high] = [DIVERGING[below][channel], DIVERGING[below + 1][channel]];
  return roundEven(low + (high - low) * (position - below));
}

const decoded = new Map();

/** The colours [256 · 3] of a colour map. */
function tableOf(name) {
  if (!(name in TABLES)) throw new ParameterError(unknown("colour map", textOf(name), COLOUR_MAPS));
  if (!decoded.has(name))
    decoded.set(
      name,
      Uint8Array.from(atob(TABLES[name]), (letter) => letter.charCodeAt(0)),
    );
  return decoded.get(name);
}

const textOf = (name) => (typeof name === "string" ? name : quoted(name));
