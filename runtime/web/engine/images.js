/** Turns what a caller hands in (pictures in bytes, numbers in the network's shape) into rows for the network. */

import { ParameterError, PictureError, listText, quoted, unknown } from "./errors.js";
import { allFinite, broadcastsTo, numbers, product, rowsOf, sameDims, stacked } from "./numbers.js";
import { colourPixels, prepare, undone } from "./preprocessing.js";
import { cast, typeNameOf } from "./sessions.js";

export const SPATIAL = { NCHW: [2, 3], NHWC: [1, 2] };

/** The axes of height and width in a batch; ParameterError for a network whose input isn't a picture. */
export function spatialAxes(layout, rows) {
  if (!(layout in SPATIAL) || rows.dims.length !== 4) {
    throw new ParameterError("this network's input is no picture (no height and width); give an array or a number");
  }
  return SPATIAL[layout];
}

/** Height and width of a batch, or [0, 0] where the input isn't a picture. */
export function imageSize(layout, rows) {
  if (!(layout in SPATIAL) || rows.dims.length !== 4) return [0, 0];
  return SPATIAL[layout].map((axis) => rows.dims[axis]);
}

/** The images of a call, each `{name, row [1, …], seen, box, original, others}`. */
export function readImages(images, bundle) {
  const entries = Array.isArray(images) ? images : [images];
  return entries.flatMap((entry) => dealt(entry, bundle)).map((entry, index) => readImage(entry, index, bundle));
}

/** One entry for each image of a batch. */
function dealt(entry, bundle) {
  if (entry === null || typeof entry !== "object") throw new PictureError(`${quoted(entry)} is no picture or numbers`);
  if (entry.inputs) return dealtInputs(entry, bundle);
  if (isPicture(entry)) return [entry];
  if (!Array.isArray(entry.dims) && !ArrayBuffer.isView(entry.dims)) {
    throw new PictureError("an image is a picture {data, width, height} or numbers {data, dims}");
  }
  const dims = [...entry.dims];
  const data = Array.isArray(entry.data) ? Float64Array.from(entry.data) : entry.data;
  if (product(dims) !== data.length) throw new PictureError(`${data.length} numbers are no array of ${listText(dims)}`);
  if (isBytes(data) && bundle.steps.length) return picturesOf(data, dims, entry.name);
  const whole = { ...entry, ...numbers(data, dims) };
  if (dims.length !== bundle.image.shape.length) return [whole];
  return Array.from({ length: dims[0] }, (_, row) => ({ ...whole, ...rowsOf(numbers(data, dims), row, row + 1) }));
}

const isPicture = (entry) => Number.isFinite(entry.width) && Number.isFinite(entry.height) && entry.data !== undefined;

const isBytes = (data) => data instanceof Uint8Array || data instanceof Uint8ClampedArray;

/** Bytes [H, W], [H, W, C] or [N, H, W, C] as pictures. */
function picturesOf(data, dims, name) {
  if (dims.length < 2 || dims.length > 4) {
    throw new PictureError(`a uint8 picture is [H, W, 3] or [H, W], not ${listText(dims)}`);
  }
  const [count, height, width, channels] = dims.length === 4 ? dims : [1, dims[0], dims[1], dims[2] ?? 1];
  const size = height * width * channels;
  return Array.from({ length: count }, (_, row) => ({
    data: data.subarray(row * size, (row + 1) * size),
    height,
    width,
    channels,
    name,
  }));
}

function dealtInputs({ inputs, name }, bundle) {
  const known = bundle.inputs.map((entry) => entry.name);
  for (const given of Object.keys(inputs)) {
    if (!known.includes(given)) throw new ParameterError(unknown("input", given, known));
  }
  if (!(bundle.image.name in inputs)) {
    throw new ParameterError(
      `the explained input ${quoted(bundle.image.name)} is missing; the network takes ${listText(known)}`,
    );
  }
  const rows = dealt(inputs[bundle.image.name], bundle);
  return rows.map((row, image) => {
    const others = bundle.others.map((entry) => [
      entry.name,
      otherOf(inputs[entry.name], entry, image, rows.length, known),
    ]);
    return { ...row, name: row.name ?? name, others: Object.fromEntries(others) };
  });
}

/** What one image gives to an input that isn't explained, with a batch axis where the input has one. */
function otherOf(value, entry, image, count, known) {
  if (value === undefined) {
    throw new ParameterError(`input ${quoted(entry.name)} is missing; the network takes ${listText(known)}`);
  }
  let array = numbers(Array.isArray(value.data) ? Float64Array.from(value.data) : value.data, value.dims);
  if (entry.batched) {
    if (array.dims.length === entry.shape.length - 1) array = numbers(array.data, [1, ...array.dims]);
    if (array.dims[0] !== count) {
      throw new ParameterError(`input ${quoted(entry.name)} has ${array.dims[0]} rows for ${count} images`);
    }
    array = rowsOf(array, image, image + 1);
  }
  const skip = entry.batched ? 1 : 0;
  if (!fits(entry.shape.slice(skip), array.dims.slice(skip))) {
    throw new ParameterError(`input ${quoted(entry.name)} takes ${listText(entry.shape)}, not ${listText(array.dims)}`);
  }
  return numbers(cast(array.data, entry.dtype), array.dims);
}

const fits = (expected, given) =>
  expected.length === given.length && expected.every((size, axis) => typeof size !== "number" || size === given[axis]);

function readImage(entry, index, bundle) {
  const name = entry.name ?? `image ${index}`;
  if (bundle.others.length && !entry.others) {
    const names = bundle.inputs.map((input) => quoted(input.name)).join(", ");
    throw new ParameterError(`the network has several inputs; give a mapping with ${names}`);
  }
  const image = isPicture(entry) ? preparedImage(name, entry, bundle) : asItIs(name, entry, bundle);
  return { ...image, name, others: entry.others ?? {} };
}

function preparedImage(name, picture, bundle) {
  if (!bundle.steps.length) {
    throw new PictureError(
      `${name}: no preprocessing in the bundle; give float arrays, or export it with --preprocessing`,
    );
  }
  const original = colourPixels(picture, name);
  const { rows, seen, box } = prepare(original, bundle.steps, name);
  const row = numbers(rows.data, [1, ...rows.dims]);
  checkShape(name, row, bundle.image);
  const bytes = numbers(original.data, [1, original.height, original.width, 3]);
  return { row, seen, box, original, bytes };
}

function asItIs(name, entry, bundle) {
  if (bundle.single?.pictureInput) {
    const dtype = typeNameOf(entry.data);
    throw new PictureError(`${name}: this file takes pictures, uint8 [H, W, 3], not ${dtype} ${listText(entry.dims)}`);
  }
  const whole = /^u?int/.test(bundle.image.dtype);
  const given = entry.data;
  if (
    whole &&
    (given instanceof Float32Array || given instanceof Float64Array) &&
    given.some((v) => !Number.isInteger(v))
  ) {
    throw new PictureError(
      `${name}: the input ${quoted(bundle.image.name)} takes whole numbers, not ${typeNameOf(given)}`,
    );
  }
  const data = bundle.image.dtype === "float16" ? Float32Array.from(given, Number) : cast(given, bundle.image.dtype);
  const hasBatchAxis = entry.dims.length === bundle.image.shape.length && entry.dims[0] === 1;
  const row = numbers(data, hasBatchAxis ? entry.dims : [1, ...entry.dims]);
  checkShape(name, row, bundle.image);
  if (!allFinite(row.data)) throw new PictureError(`${name} contains NaN or infinity`);
  const picture = numbers(row.data, row.dims.slice(1));
  return { row, seen: whole ? null : undone(picture, bundle.steps), box: null, original: null };
}

function checkShape(name, row, input) {
  const [expected, given] = [input.shape.slice(1), row.dims.slice(1)];
  if (fits(expected, given)) return;
  const hint = given.length === 3 && given[2] === 3 ? "; hand in a picture as uint8 [H, W, 3]" : "";
  throw new PictureError(
    `${name} has shape ${listText(given)}; the network's input ${quoted(input.name)} takes ${listText(expected)} an ` +
      `image${hint}`,
  );
}

/** The images' rows as one batch [N, …]; PictureError where their sizes differ. */
export function stack(images, input) {
  if (!images.length) {
    const dims = [0, ...input.shape.slice(1).map((size) => (typeof size === "number" ? size : 1))];
    return numbers(new Float32Array(0), dims);
  }
  const [first] = images;
  for (const image of images) {
    if (sameDims(image.row.dims, first.row.dims)) continue;
    throw new PictureError(
      `${image.name} has shape ${listText(image.row.dims.slice(1))} and ${first.name} ` +
        `${listText(first.row.dims.slice(1))}; images of one call need one size`,
    );
  }
  return stacked(images.map((image) => image.row));
}

/** The pictures of a call as one batch of bytes [N, H, W, 3], for files that preprocess by themselves. */
export function stackPictures(images) {
  const [first] = images;
  for (const image of images) {
    if (sameDims(image.bytes.dims, first.bytes.dims)) continue;
    throw new PictureError(
      `${image.name} has shape ${listText(image.bytes.dims.slice(1))} and ${first.name} ` +
        `${listText(first.bytes.dims.slice(1))}; images of one call need one size`,
    );
  }
  return images.length ? stacked(images.map((image) => image.bytes)) : numbers(new Uint8Array(0), [0, 1, 1, 3]);
}

/** What the images give to the inputs that aren't explained, as batches; ParameterError where shared ones differ. */
export function stackOthers(images, bundle) {
  return bundle.others.map((entry) => {
    const rows = images.map((image) => image.others[entry.name]);
    if (entry.batched) return { entry, values: rows.length ? stacked(rows) : numbers(new Float32Array(0), [0, 1]) };
    const same = (row) =>
      broadcastsTo(row.dims, rows[0].dims) && row.data.every((value, place) => value === rows[0].data[place]);
    if (!rows.every(same)) {
      throw new ParameterError(
        `input ${quoted(entry.name)} has no batch axis: it must be the same for all images of a call`,
      );
    }
    return { entry, values: rows[0] };
  });
}
