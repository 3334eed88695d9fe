/**
 * The formulas of the CAM family: maps of a feature layer from its features and the gradient of the score at them.
 *
 * Features are [N, K, h, w] and gradients [N, T, K, h, w]: K channels on a grid of h rows and w columns, T targets.
 * Maps are float64 [N, T, h, w], signed and at the layer's size. All are defined for features and gradients of zeros.
 */

import { BundleError, ParameterError, listText, unknown } from "./errors.js";
import { firstProjection, matrixProduct, transposed } from "./linear_algebra.js";
import { numbers, product } from "./numbers.js";
import { interpolationMatrix, resize } from "./resize.js";

const LAYOUTS = ["NCHW", "NHWC", "tokens"];

/** Σ_k w_k A_k with w_k the gradient's mean over places (Selvaraju et al. 2017, arXiv:1610.02391). */
function gradcam(features, gradients) {
  return byChannel(features, gradients, (_, gradient) => sum(gradient) / gradient.length);
}

/**
 * Σ_k w_k A_k with w_k = Σ_ij α_ij max(g_ij, 0) and α_ij = g_ij² / (2 g_ij² + g_ij³ Σ_ab A_ab), 0 for 0 / 0
 * (Chattopadhyay et al. 2018, arXiv:1710.11063).
 */
function gradcamPlusPlus(features, gradients) {
  return byChannel(features, gradients, (feature, gradient) => {
    const whole = sum(feature);
    let weight = 0;
    for (const value of gradient) {
      const rising = Math.max(value, 0);
      const below = 2 + rising * whole;
      if (below !== 0) weight += rising / below;
    }
    return weight;
  });
}

/** Σ_k g_k A_k, place by place (Draelos, Carin 2020, arXiv:2011.08891). */
const hirescam = (features, gradients) => byPlace(features, gradients, (value) => value);

/** Σ_k max(g_k, 0) A_k, place by place (Jiang et al. 2021, doi:10.1109/TIP.2021.3089943). */
const layercam = (features, gradients) => byPlace(features, gradients, (value) => Math.max(value, 0));

/** Σ_k w_k A_k with w_k = Σ_ij g_ij A_ij / Σ_ij A_ij, 0 for a channel that adds up to 0 (Fu et al. 2020). */
function xgradcam(features, gradients) {
  return byChannel(features, gradients, (feature, gradient) => {
    const whole = sum(feature);
    let products = 0;
    feature.forEach((value, place) => (products += gradient[place] * value));
    return whole === 0 ? 0 : products / whole;
  });
}

/**
 * The projection of each place's features on their first right singular vector; the same for every target. Its sign
 * makes the map add up to more than 0 (where it adds up to 0, its largest number by magnitude is positive).
 * Muhammad, Yeasin: Eigen-CAM (2020, arXiv:2008.00299).
 */
function eigencam(features, gradients) {
  const [count, channels, height, width] = features.dims;
  const targets = gradients.dims[1];
  const places = height * width;
  const maps = new Float64Array(count * targets * places);
  for (let image = 0; image < count; image++) {
    const own = features.data.subarray(image * channels * places, (image + 1) * channels * places);
    const map = firstProjection(transposed(own, channels, places), places, channels);
    const [total, size] = [sum(map), map.reduce((all, value) => all + Math.abs(value), 0)];
    const peak = map.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0);
    const sign = (Math.abs(total) <= 1e-12 * size ? peak : total) < 0 ? -1 : 1;
    for (let target = 0; target < targets; target++) {
      maps.set(
        map.map((value) => value * sign),
        (image * targets + target) * places,
      );
    }
  }
  return numbers(maps, [count, targets, height, width]);
}

/** The formulas over features and gradients, by the finish rule that a bundle names. */
const CAMS = { gradcam, gradcam_plus_plus: gradcamPlusPlus, hirescam, layercam, xgradcam, eigencam };

/** The formula; BundleError for one that this version doesn't know. */
export function findCam(name) {
  if (name in CAMS) return CAMS[name];
  throw new BundleError(`${unknown("CAM formula", name, Object.keys(CAMS))}; pip install --upgrade onnxplain`);
}

const sum = (values) => values.reduce((all, value) => all + value, 0);

/** Σ_k w_k A_k for weights that `weigh` makes of a channel's features and gradients. */
function byChannel(features, gradients, weigh) {
  const [count, channels, height, width] = features.dims;
  const targets = gradients.dims[1];
  const places = height * width;
  const weights = new Float64Array(count * targets * channels);
  for (let at = 0; at < weights.length; at++) {
    const feature = (Math.floor(at / (targets * channels)) * channels + (at % channels)) * places;
    const own = gradients.data.subarray(at * places, (at + 1) * places);
    weights[at] = weigh(features.data.subarray(feature, feature + places), own);
  }
  return weighted(features, numbers(weights, [count, targets, channels]));
}

/** Σ_k w_k A_k for weights [N, T, K]. */
export function weighted(features, { data, dims: [count, targets, channels] }) {
  const [height, width] = features.dims.slice(2);
  const places = height * width;
  const maps = new Float64Array(count * targets * places);
  for (let image = 0; image < count; image++) {
    const own = features.data.subarray(image * channels * places, (image + 1) * channels * places);
    const part = data.subarray(image * targets * channels, (image + 1) * targets * channels);
    maps.set(matrixProduct(part, own, targets, channels, places), image * targets * places);
  }
  return numbers(maps, [count, targets, height, width]);
}

function byPlace(features, gradients, change) {
  const [count, targets, channels, height, width] = gradients.dims;
  const places = height * width;
  const maps = new Float64Array(count * targets * places);
  for (let map = 0; map < count * targets; map++) {
    const from = Math.floor(map / targets) * channels * places;
    for (let place = 0; place < channels * places; place++) {
      maps[map * places + (place % places)] +=
        change(gradients.data[map * channels * places + place]) * features.data[from + place];
    }
  }
  return numbers(maps, [count, targets, height, width]);
}

/**
 * Score-CAM's masks float32 [K, H, W] of one image's features [K, h, w]: enlarged, each from 0 at its least to 1.
 * Wang et al.: Score-CAM (2020, arXiv:1910.01279), equation 4. A constant channel's mask is 0.
 */
export function scorecamMasks(features, size) {
  const large = enlarged(features, size);
  const places = size[0] * size[1];
  const masks = new Float32Array(large.data.length);
  for (let start = 0; start < masks.length; start += places) {
    let [low, high] = [Infinity, -Infinity];
    for (let at = start; at < start + places; at++) {
      low = Math.min(low, large.data[at]);
      high = Math.max(high, large.data[at]);
    }
    if (!(high > low)) continue;
    for (let at = start; at < start + places; at++) masks[at] = (large.data[at] - low) / (high - low);
  }
  return numbers(masks, large.dims);
}

/** Values of a layer [lead, ..., its own axes] as [lead, ..., K, h, w]; tokens that stand for no place are left out. */
export function onGrid(values, { layout, grid, prefix }) {
  if (!LAYOUTS.includes(layout)) {
    throw new BundleError(`${unknown("layer layout", layout, LAYOUTS)}; pip install --upgrade onnxplain`);
  }
  if (layout === "NCHW") return values;
  const rank = layout === "NHWC" ? 3 : 2;
  const lead = values.dims.slice(0, -rank);
  const channels = values.dims.at(-1);
  const [height, width] = layout === "NHWC" ? values.dims.slice(-3, -1) : grid;
  const skip = layout === "NHWC" ? 0 : prefix;
  const places = height * width;
  const found = new values.data.constructor(product(lead) * channels * places);
  for (let item = 0; item < product(lead); item++) {
    for (let place = 0; place < places; place++) {
      const from = (item * (places + skip) + skip + place) * channels;
      for (let c = 0; c < channels; c++) found[(item * channels + c) * places + place] = values.data[from + c];
    }
  }
  return numbers(found, [...lead, channels, height, width]);
}

/** What `onGrid` undoes: [M, K, h, w] in the layer's own axes, behind the tokens `before` [prefix · K]. */
export function inLayout(values, layout, before) {
  if (layout === "NCHW") return values;
  const [count, channels, height, width] = values.dims;
  const places = height * width;
  const skip = before ? before.length / channels : 0;
  const found = new values.data.constructor(count * (places + skip) * channels);
  for (let item = 0; item < count; item++) {
    const start = item * (places + skip) * channels;
    if (before) found.set(before, start);
    for (let place = 0; place < places; place++) {
      const to = start + (skip + place) * channels;
      for (let c = 0; c < channels; c++) found[to + c] = values.data[(item * channels + c) * places + place];
    }
  }
  return numbers(found, layout === "NHWC" ? [count, height, width, channels] : [count, places + skip, channels]);
}

/** One image's features [K, h, w] with all places but one set to 0, for the places `first` to `past`: [M, K, h, w]. */
export function singlePlaces(features, first, past) {
  const [channels, height, width] = features.dims;
  const places = height * width;
  const found = new features.data.constructor((past - first) * channels * places);
  for (let row = 0; row < past - first; row++) {
    for (let c = 0; c < channels; c++) {
      const at = c * places + first + row;
      found[row * channels * places + at] = features.data[at];
    }
  }
  return numbers(found, [past - first, channels, height, width]);
}

/** The positive part: what speaks for the target. */
export function positive({ data, dims }) {
  return numbers(
    data.map((value) => Math.max(value, 0)),
    dims,
  );
}

/** Maps [..., h, w] at the picture's size: bilinear, centres at half-integers, borders repeated. */
function enlarged(maps, [height, width]) {
  const [h, w] = maps.dims.slice(-2);
  const rows = interpolationMatrix(h, height, "bilinear", false);
  const columns = transposed(interpolationMatrix(w, width, "bilinear", false), width, w);
  return eachMap(maps, height, width, (map) =>
    matrixProduct(matrixProduct(rows, map, height, h, w), columns, height, w, width),
  );
}

/**
 * The same as MindSpore XAI 2.0.0 makes it: through 8 bits, by Pillow's bilinear; what lies outside 0..1 wraps around.
 */
function enlargedInBytes(maps, [height, width]) {
  const [h, w] = maps.dims.slice(-2);
  return eachMap(maps, height, width, (map) => {
    const bytes = Uint8Array.from(map, (value) => Math.trunc(Math.fround(Math.fround(value) * 255)) & 255);
    const large = resize({ data: bytes, height: h, width: w, channels: 1 }, height, width);
    return Float64Array.from(large.data, (value) => value / 255);
  });
}

function eachMap({ data, dims }, height, width, make) {
  const size = dims.at(-1) * dims.at(-2);
  const count = data.length / size;
  const found = new Float64Array(count * height * width);
  for (let map = 0; map < count; map++) {
    found.set(make(data.subarray(map * size, (map + 1) * size)), map * height * width);
  }
  return numbers(found, [...dims.slice(0, -2), height, width]);
}

/** How a map of the layer comes to the picture's size, if at all. */
const UPSAMPLING = { bilinear: enlarged, bytes: enlargedInBytes, none: (maps) => maps };

/** Maps [..., h, w] by the rule of that name. */
export function upsampled(maps, size, how) {
  if (how in UPSAMPLING) return UPSAMPLING[how](maps, size);
  throw new ParameterError(unknown("upsample", how, Object.keys(UPSAMPLING)));
}

/** Guided Grad-CAM [N, T, …]: positive maps [N, T, H, W] times the guided gradient [N, T, …] of every channel. */
export function guided(maps, gradients, layout) {
  const [height, width] = maps.dims.slice(-2);
  const area = height * width;
  const size = product(gradients.dims.slice(2));
  if (size % area !== 0) throw new ParameterError(`maps ${listText(maps.dims)} don't fit ${listText(gradients.dims)}`);
  const channels = size / area;
  const data = new Float32Array(gradients.data.length);
  for (let at = 0; at < data.length; at++) {
    const inside = at % size;
    const pixel = layout === "NCHW" ? inside % area : Math.floor(inside / channels);
    data[at] = maps.data[Math.floor(at / size) * area + pixel] * gradients.data[at];
  }
  return numbers(data, gradients.dims);
}
