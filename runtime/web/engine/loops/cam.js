/**
 * The loops of the CAM family: maps of a feature layer, brought to the picture's size. The formulas are in cams.js;
 * here is where their features, gradients and scores come from.
 */

import {
  findCam,
  guided,
  inLayout,
  onGrid,
  positive,
  scorecamMasks,
  singlePlaces,
  upsampled,
  weighted,
} from "../cams.js";
import { BundleError, ParameterError, quoted, unknown } from "../errors.js";
import { fillValues } from "../fills.js";
import { broadcast, numbers, product, range, rowsOf } from "../numbers.js";
import { chunks } from "../planner.js";

/** Of the progress, for the one run of the layer's graph before many of other graphs. */
const LAYER_SHARE = 0.02;

/** The maps that the formula named by the finish rule makes of a layer's features and gradients. */
export async function cam(work) {
  work.mapShape; // an error where there are no pictures
  const layer = chosenLayer(work);
  const [features, gradients] = await layerRun(work, layer, ["layer_features", "total"], 1);
  return asPictures(work, findCam(work.method.finish)(features.grid, gradients.grid));
}

/**
 * Score-CAM: each channel weighs as much as the score that the picture keeps when seen through it alone. `channels`,
 * unless 0, takes only so many of each image's channels, those that vary most over the picture.
 */
export async function scoreCam(work) {
  const layer = chosenLayer(work);
  const [{ grid: features }] = await layerRun(work, layer, ["layer_features"], LAYER_SHARE);
  const empty = broadcast(fillValues("fill", work.parameters.fill, work.rows, work.bundle), work.rows.dims);
  const lowest = await work.explainedAt(empty, range(work.count));
  const [count, targets] = work.leading;
  const maps = new Float64Array(count * targets * product(layer.grid));
  for (let image = 0; image < count; image++) {
    const own = oneImage(features, image);
    const channels = mostVarying(own, work.parameters.channels);
    const kept = channelsOf(own, channels);
    const gains = new Float64Array(targets * channels.length);
    for (const [first, past] of parts(channels.length, work, "forward")) {
      const scores = await maskedScores(
        work,
        rowsOf(kept, first, past),
        oneImage(empty, image),
        image,
        channels.length,
      );
      scores.data.forEach((score, at) => {
        const [row, target] = [Math.floor(at / targets), at % targets];
        gains[target * channels.length + first + row] = Math.fround(score - lowest.data[image * targets + target]);
      });
    }
    const one = numbers(kept.data, [1, ...kept.dims]);
    const map = weighted(one, numbers(gains, [1, targets, channels.length]));
    maps.set(map.data, image * map.data.length);
  }
  return asPictures(work, numbers(maps, [count, targets, ...layer.grid]));
}

/** Ablation-CAM: each channel weighs as much as the score loses without it, (y − y_k) / |y|. */
export async function ablationCam(work) {
  const layer = chosenLayer(work);
  const tail = tailOf(work, layer);
  const [{ grid: features, raw }] = await layerRun(work, layer, ["layer_features"], LAYER_SHARE);
  const [images, targets] = work.leading;
  const count = features.dims[1];
  const weights = new Float64Array(images * targets * count);
  const explained = await work.explained();
  for (let image = 0; image < images; image++) {
    for (const [first, past] of parts(count, work, tail)) {
      const rows = without(oneImage(raw, image), layer.layout, first, past);
      const found = await explainedBehind(work, tail, rows, image);
      found.data.forEach((score, at) => {
        const [row, target] = [Math.floor(at / targets), at % targets];
        const y = explained.data[image * targets + target];
        weights[(image * targets + target) * count + first + row] = (y - score) / (y === 0 ? 1 : Math.abs(y));
      });
      work.advance(((1 - LAYER_SHARE) * (past - first)) / count);
    }
  }
  return asPictures(work, weighted(features, numbers(weights, [images, targets, count])));
}

/** Recipro-CAM: the score that the network finds with the features of one place alone, for each place. */
export async function reciproCam(work) {
  const layer = chosenLayer(work);
  const tail = tailOf(work, layer);
  const [{ grid: features, raw }] = await layerRun(work, layer, ["layer_features"], LAYER_SHARE);
  const [images, targets] = work.leading;
  const count = product(layer.grid);
  const maps = new Float64Array(images * targets * count);
  for (let image = 0; image < images; image++) {
    const own = oneImage(raw, image);
    const before = layer.prefix ? own.data.subarray(0, layer.prefix * own.dims.at(-1)) : null;
    for (const [first, past] of parts(count, work, tail)) {
      const rows = inLayout(singlePlaces(oneImage(features, image), first, past), layer.layout, before);
      const found = await explainedBehind(work, tail, rows, image);
      found.data.forEach((score, at) => {
        const [row, target] = [Math.floor(at / targets), at % targets];
        maps[(image * targets + target) * count + first + row] = score;
      });
      work.advance(((1 - LAYER_SHARE) * (past - first)) / count);
    }
  }
  return asPictures(work, numbers(maps, [images, targets, ...layer.grid]));
}

/** Guided Grad-CAM: the positive Grad-CAM at the picture's size times the guided gradient, [N, T, …]. */
export async function guidedGradcam(work) {
  work.mapShape; // an error where there are no pictures
  if (work.bundle.inside) {
    throw new ParameterError(
      `${work.method.name} needs gradients at the picture, not at ${quoted(work.bundle.inside.name)}`,
    );
  }
  const layer = chosenLayer(work);
  const [features, gradients] = await layerRun(work, layer, ["layer_features", "total"], 0.5);
  const maps = upsampled(positive(findCam("gradcam")(features.grid, gradients.grid)), work.size, "bilinear");
  const [total] = await work.collect(["total"], { graph: "gradient.guided", share: 0.5 });
  return guided(maps, total, work.bundle.image.layout);
}

/** The layer of the parameter `layer`, "" the default one; ParameterError for one that wasn't exported. */
function chosenLayer(work) {
  const name = work.parameters.layer ?? "";
  const { layers, path } = work.bundle;
  if (!layers.length) {
    throw new BundleError(`${path} has no feature layer for ${work.method.name}; export the model again`);
  }
  if (!name) return layers.find((layer) => layer.default) ?? layers[0];
  const found = layers.find((layer) => layer.name === name);
  if (found) return found;
  const sentence = unknown(
    "layer",
    name,
    layers.map((layer) => layer.name),
  );
  throw new ParameterError(`${sentence}; export the model with --layer ${name} for another one`);
}

/** Outputs of the layer's graph, each as {grid: [N, …, K, h, w], raw: in the layer's own axes}. */
async function layerRun(work, layer, outputs, share) {
  const found = await work.collect(outputs, { graph: layer.graph, share });
  return found.map((raw) => ({ grid: onGrid(raw, layer), raw }));
}

/** Maps [N, T, h, w] of the layer as maps of the picture, with one channel where its layout has them. */
function asPictures(work, maps) {
  const signed = work.parameters.relu ? positive(maps) : maps;
  const { data, dims } = upsampled(signed, work.size, work.parameters.upsample);
  work.mapShape; // an error where there are no pictures
  const planes = work.bundle.image.layout === "NCHW";
  const shape = planes ? [...dims.slice(0, 2), 1, ...dims.slice(2)] : [...dims, 1];
  return numbers(Float32Array.from(data), shape);
}

function oneImage(array, image) {
  const one = rowsOf(array, image, image + 1);
  return numbers(one.data, one.dims.slice(1));
}

function channelsOf(features, channels) {
  const places = product(features.dims.slice(1));
  const data = new features.data.constructor(channels.length * places);
  channels.forEach((channel, at) =>
    data.set(features.data.subarray(channel * places, (channel + 1) * places), at * places),
  );
  return numbers(data, [channels.length, ...features.dims.slice(1)]);
}

/** The channels of one image's features [K, h, w] with the largest deviation, in their own order; all for 0. */
function mostVarying(features, most) {
  const [count, ...rest] = features.dims;
  if (!(most > 0 && most < count)) return range(count);
  const places = product(rest);
  const variance = range(count).map((channel) => {
    const own = features.data.subarray(channel * places, (channel + 1) * places);
    const mean = own.reduce((all, value) => all + value, 0) / places;
    return Math.sqrt(own.reduce((all, value) => all + (value - mean) ** 2, 0) / places);
  });
  return range(count)
    .sort((a, b) => variance[b] - variance[a] || a - b)
    .slice(0, most)
    .sort((a, b) => a - b);
}

/** Parts of so many rows as one run of a graph takes. */
function parts(count, work, graph) {
  const perRun = work.rowsPerRun(work.bundle.graphs[graph], work.asked.count);
  return chunks(1, count, perRun).map((chunk) => chunk.steps);
}

/** The scores [M, T] of one image seen through the masks of some channels, out of `count` of them. */
async function maskedScores(work, features, empty, image, count) {
  const masks = scorecamMasks(features, work.size);
  const own = oneImage(work.rows, image);
  const size = own.data.length;
  const area = work.size[0] * work.size[1];
  const planar = work.bundle.image.layout === "NCHW";
  const [rows] = features.dims;
  const data = new Float32Array(rows * size);
  for (let at = 0; at < data.length; at++) {
    const inside = at % size;
    const pixel = planar ? inside % area : Math.floor(inside / (size / area));
    const mask = masks.data[Math.floor(at / size) * area + pixel];
    data[at] = Math.fround(mask * own.data[inside]) + Math.fround(Math.fround(1 - mask) * empty.data[inside]);
  }
  const scores = await work.explainedAt(numbers(data, [rows, ...own.dims]), Array(rows).fill(image));
  work.advance(((1 - LAYER_SHARE) * rows) / count);
  return scores;
}

function tailOf(work, layer) {
  if (layer.tail !== null) return layer.tail;
  throw new BundleError(
    `${work.bundle.path} lacks what lies behind ${quoted(layer.name)}; export ${work.method.name} again`,
  );
}

/** One image's features in the layer's own axes, without one of the channels `first` to `past` each: [M, …]. */
function without(features, layout, first, past) {
  const size = features.data.length;
  const channels = layout === "NCHW" ? features.dims[0] : features.dims.at(-1);
  const data = new features.data.constructor((past - first) * size);
  for (let row = 0; row < past - first; row++) {
    const own = data.subarray(row * size, (row + 1) * size);
    own.set(features.data);
    const places = size / channels;
    if (layout === "NCHW") own.fill(0, (first + row) * places, (first + row + 1) * places);
    else for (let place = 0; place < places; place++) own[place * channels + first + row] = 0;
  }
  return numbers(data, [past - first, ...features.dims]);
}

/** What is explained [M, T] of one image with other features [M, …] at the layer. */
async function explainedBehind(work, tail, features, image) {
  const images = Array(features.dims[0]).fill(image);
  return work.explainedOf(await work.scoresBehind(tail, features, images), images);
}
