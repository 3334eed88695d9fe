/**
 * Resizing as two small matrix products, the same numbers in every language that runs a bundle.
 *
 * Libraries disagree on what "bilinear" means: Pillow widens its kernel when it shrinks a picture, OpenCV does not. A
 * network sees the difference, so a bundle names the kernel and this module computes it.
 */

import { ParameterError, unknown } from "./errors.js";

export const KERNELS = ["bilinear", "bicubic", "nearest"];
const SUPPORT = { bilinear: 1, bicubic: 2 };
// Pillow's fixed point for 8-bit pictures: weights are rounded to this many binary places (Resample.c, PRECISION_BITS).
const PILLOW_SCALE = 2 ** 22;

function triangle(x) {
  return Math.max(0, 1 - Math.abs(x));
}

/** The cubic kernel with slope `a` (Keys 1981, doi:10.1109/TASSP.1981.1163711). */
function cubic(distance, a) {
  const x = Math.abs(distance);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/**
 * The weights [target, source] that resample a line of pixels, as a Float64Array; each row sums to 1. Pixel centres lie
 * at half-integers. `box` is the stretch of the line, in source pixels, that the target covers. With `antialias` the
 * kernel widens as the line shrinks (Pillow); without it, taps beyond the ends repeat the border (OpenCV, torch).
 */
export function interpolationMatrix(source, target, kernel, antialias, box = null) {
  const matrix = new Float64Array(target * source);
  tapsOf(source, target, kernel, antialias, box).forEach(({ taps, weights }, line) => {
    taps.forEach((tap, place) => {
      matrix[line * source + tap] += weights[place];
    });
  });
  return matrix;
}

/** For each target pixel the source pixels that it reads, and their weights. */
function tapsOf(source, target, kernel, antialias, box = null) {
  if (!KERNELS.includes(kernel)) throw new ParameterError(unknown("resize kernel", kernel, KERNELS));
  if (source < 1 || target < 1) {
    throw new ParameterError(`can't resize ${source} pixels to ${target}: both must be at least 1`);
  }
  const [start, end] = box ?? [0, source];
  const scale = (end - start) / target;
  if (kernel === "nearest") return nearest(source, target, start, scale);
  const line = [];
  for (let place = 0; place < target; place++) {
    const centre = start + (place + 0.5) * scale;
    line.push(
      antialias ? antialiased(centre, Math.max(scale, 1), source, kernel) : interpolated(centre, source, kernel),
    );
  }
  return antialias ? normalised(line) : line;
}

function nearest(source, target, start, scale) {
  // Added up, not multiplied, as Pillow does (Geometry.c): where a centre falls between two pixels the rounding
  // decides.
  const line = [];
  let centre = start + 0.5 * scale;
  for (let place = 0; place < target; place++) {
    line.push({ taps: [Math.min(Math.max(Math.floor(centre), 0), source - 1)], weights: [1] });
    centre += scale;
  }
  return line;
}

function antialiased(middle, width, source, kernel) {
  // The bounds truncate as Pillow's precompute_coeffs does; a tap just inside the support but outside them stays 0.
  const support = SUPPORT[kernel] * width;
  const centre = Math.min(Math.max(middle, 0), source);
  const first = Math.max(Math.trunc(centre - support + 0.5), 0);
  const past = Math.min(Math.trunc(centre + support + 0.5), source);
  const inverse = 1 / width;
  const [taps, weights] = [[], []];
  for (let tap = first; tap < Math.max(past, first + 1); tap++) {
    const distance = (tap - centre + 0.5) * inverse;
    taps.push(Math.min(tap, source - 1));
    weights.push(tap < past ? (kernel === "bilinear" ? triangle(distance) : cubic(distance, -0.5)) : 0);
  }
  return { taps, weights };
}

/** Lines whose weights add up to 1; each is summed with zeros up to the longest one's length, as numpy has them. */
function normalised(lines) {
  const longest = Math.max(...lines.map(({ taps }) => taps.length));
  return lines.map(({ taps, weights }) => {
    const sum = pairwiseSum([...weights, ...Array(longest - weights.length).fill(0)], 0, longest);
    return { taps, weights: weights.map((weight) => weight / sum) };
  });
}

function interpolated(centre, source, kernel) {
  const position = centre - 0.5;
  const first = Math.floor(position);
  const taps = (kernel === "bilinear" ? [0, 1] : [-1, 0, 1, 2]).map((offset) => first + offset);
  const weigh = kernel === "bilinear" ? triangle : (distance) => cubic(distance, -0.75);
  return {
    taps: taps.map((tap) => Math.min(Math.max(tap, 0), source - 1)),
    weights: taps.map((tap) => weigh(position - tap)),
  };
}

/** A sum in numpy's order, so that weights are equal to the last bit. */
function pairwiseSum(values, first, count) {
  if (count > 128) {
    const half = Math.floor(count / 2) - (Math.floor(count / 2) % 8);
    return pairwiseSum(values, first, half) + pairwiseSum(values, first + half, count - half);
  }
  if (count < 8) {
    let sum = 0;
    for (let place = 0; place < count; place++) sum += values[first + place];
    return sum;
  }
  const r = values.slice(first, first + 8);
  const whole = count - (count % 8);
  for (let place = 8; place < whole; place += 8) {
    for (let lane = 0; lane < 8; lane++) r[lane] += values[first + place + lane];
  }
  let sum = r[0] + r[1] + (r[2] + r[3]) + (r[4] + r[5] + (r[6] + r[7]));
  for (let place = whole; place < count; place++) sum += values[first + place];
  return sum;
}

/**
 * A picture `{data, height, width, channels}` resized: bytes if `rounded`, else Float32Array, of the `region` [top,
 * bottom, left, right] of the result alone. With `antialias` and `rounded` the result equals Pillow's for 8-bit
 * pictures bit for bit: the width first, then the height, each in fixed point and rounded to a byte.
 */
export function resize(
  picture,
  height,
  width,
  { kernel = "bilinear", antialias = true, rounded = true, region = null } = {},
) {
  const fixed = antialias && rounded;
  const [top, bottom, left, right] = region ?? [0, height, 0, width];
  const across = linesOf(picture.width, width, kernel, antialias, fixed, left, right);
  const down = linesOf(picture.height, height, kernel, antialias, fixed, top, bottom);
  const [firstRow, pastRow] = readBy(down);
  let part = acrossRows(picture, across, firstRow, pastRow, fixed);
  part = downColumns(part, down, firstRow, fixed);
  const data = rounded ? toBytes(part.data) : Float32Array.from(part.data);
  return { data, height: bottom - top, width: right - left, channels: picture.channels };
}

/** The lines from `start` to `end` of a result, each by its taps; where sizes are equal, the source's own. */
function linesOf(source, target, kernel, antialias, fixed, start, end) {
  if (source === target) {
    const line = [];
    for (let place = start; place < end; place++) line.push({ taps: [place], weights: [1] });
    return Object.assign(line, { same: true });
  }
  const lines = tapsOf(source, target, kernel, antialias).slice(start, end);
  if (!fixed) return lines;
  return lines.map(({ taps, weights }) => ({ taps, weights: weights.map(inFixedPoint) }));
}

function inFixedPoint(weight) {
  const scaled = weight * PILLOW_SCALE;
  return Math.trunc(scaled + (scaled < 0 ? -0.5 : 0.5)) / PILLOW_SCALE;
}

function readBy(lines) {
  let [first, past] = [Infinity, 0];
  for (const { taps } of lines) {
    for (const tap of taps) [first, past] = [Math.min(first, tap), Math.max(past, tap + 1)];
  }
  return [first, past];
}

/** The rows `first` to `past` of a picture with their columns resampled. */
function acrossRows(picture, lines, first, past, fixed) {
  const { channels } = picture;
  const columns = lines.length;
  const data =
    lines.same && picture.data instanceof Uint8Array
      ? new Uint8Array((past - first) * columns * channels)
      : new Float64Array((past - first) * columns * channels);
  for (let row = first; row < past; row++) {
    const from = row * picture.width * channels;
    const to = (row - first) * columns * channels;
    lines.forEach(({ taps, weights }, column) => {
      for (let channel = 0; channel < channels; channel++) {
        let sum = 0;
        for (let n = 0; n < taps.length; n++) sum += weights[n] * picture.data[from + taps[n] * channels + channel];
        data[to + column * channels + channel] = sum;
      }
    });
  }
  const made = fixed && !lines.same ? toBytes(data) : data;
  return { data: made, height: past - first, width: columns, channels };
}

/** The lines of a result down a part of a picture that begins at the row `first`. */
function downColumns(part, lines, first, fixed) {
  if (lines.same) {
    return part;
  }
  const width = part.width * part.channels;
  const data = new Float64Array(lines.length * width);
  lines.forEach(({ taps, weights }, row) => {
    const to = row * width;
    for (let n = 0; n < taps.length; n++) {
      const from = (taps[n] - first) * width;
      const weight = weights[n];
      for (let place = 0; place < width; place++) data[to + place] += weight * part.data[from + place];
    }
  });
  return { ...part, data: fixed ? toBytes(data) : data, height: lines.length };
}

/** Rounded, halves up, to 0..255. */
function toBytes(data) {
  if (data instanceof Uint8Array) return data;
  const bytes = new Uint8Array(data.length);
  for (let place = 0; place < data.length; place++) {
    bytes[place] = Math.min(Math.max(data[place] + 0.5, 0), 255.5); // what lies behind the point falls away
  }
  return bytes;
}
