/** From a picture to the numbers that a network takes: an ordered list of steps, the same in every language. */

import { PictureError, listText } from "./errors.js";
import { numbers, roundEven } from "./numbers.js";
import { resize } from "./resize.js";

// A sliver of 1 x 10,000 pixels, its shorter side scaled to 256, would fill gigabytes.
const MOST_PIXELS = 100_000_000;

/**
 * A picture as the network takes it: `rows` float32 [C, H, W] or [H, W, C]; `seen`, RGB bytes [H, W, 3], as the network
 * sees it; `box`, the part of the original that `seen` covers (top, left, bottom, right in its pixels).
 */
export function prepare(picture, steps, name = "a picture") {
  const pixels = colourPixels(picture, name);
  const byName = Object.fromEntries(steps.map((step) => [step.step, step]));
  const order = byName.colour?.order ?? "RGB";
  const { drawn, box } = placed(coloured(pixels, order), byName.resize, byName.crop);
  return { rows: valued(drawn, steps), seen: seenAs(drawn, order), box };
}

/** A picture with three channels, `{data, width, height, channels}`; alpha is left out, grey repeated. */
export function colourPixels(picture, name) {
  const { data, width, height } = picture;
  if (!(data instanceof Uint8Array || data instanceof Uint8ClampedArray)) {
    const kind = data?.constructor?.name ?? String(data);
    throw new PictureError(
      `${name}: a picture's data are bytes (Uint8Array), not ${kind}; hand in numbers as { data, dims }`,
    );
  }
  const channels = picture.channels ?? data.length / (width * height);
  const whole = Number.isInteger(width) && Number.isInteger(height) && width > 0 && height > 0;
  if (!whole || ![1, 3, 4].includes(channels) || data.length !== width * height * channels) {
    throw new PictureError(
      `${name}: a uint8 picture is [H, W, 3] or [H, W], not ${listText(shapeOf(picture, channels))}`,
    );
  }
  const bytes = data instanceof Uint8Array ? data : new Uint8Array(data.buffer, data.byteOffset, data.length);
  if (channels === 3) return { data: bytes, width, height, channels };
  const made = new Uint8Array(width * height * 3);
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let c = 0; c < 3; c++) made[3 * pixel + c] = bytes[channels * pixel + (channels === 1 ? 0 : c)];
  }
  return { data: made, width, height, channels: 3 };
}

function shapeOf({ data, width, height }, channels) {
  return Number.isInteger(channels) ? [height, width, channels] : [height, width, data.length / (width * height || 1)];
}

function coloured(picture, order) {
  const { data, width, height } = picture;
  if (order === "RGB") return picture;
  const size = width * height;
  if (order === "GREY") {
    // ITU-R 601 in Pillow's fixed point (Convert.c, L24), so that grey networks see what they were trained on.
    const grey = new Uint8Array(size);
    for (let pixel = 0; pixel < size; pixel++) {
      const at = 3 * pixel;
      grey[pixel] = (data[at] * 19595 + data[at + 1] * 38470 + data[at + 2] * 7471 + 0x8000) >>> 16;
    }
    return { data: grey, width, height, channels: 1 };
  }
  return { data: turnedRound(data), width, height, channels: 3 };
}

function turnedRound(data) {
  const made = new data.constructor(data.length);
  for (let at = 0; at < data.length; at += 3) {
    [made[at], made[at + 1], made[at + 2]] = [data[at + 2], data[at + 1], data[at]];
  }
  return made;
}

/** A picture resized and cropped at its centre, padded with 0 where it is smaller, and the box that it covers. */
function placed(picture, resized, crop) {
  const [height, width] = resized ? resizedShape(picture, resized) : [picture.height, picture.width];
  const [rows, columns] = crop?.size ?? [height, width];
  const [top, left] = [centre(height, rows), centre(width, columns)];
  const region = [Math.max(top, 0), Math.min(top + rows, height), Math.max(left, 0), Math.min(left + columns, width)];
  const inside = resized
    ? resize(picture, height, width, {
        kernel: resized.kernel,
        antialias: resized.antialias,
        rounded: resized.round,
        region,
      })
    : part(picture, region);
  const [row, column] = [picture.height / height, picture.width / width];
  const box = [top * row, left * column, (top + rows) * row, (left + columns) * column];
  const fits = inside.height === rows && inside.width === columns;
  return { drawn: fits ? inside : padded(inside, rows, columns, region[0] - top, region[2] - left), box };
}

/** The [height, width] that a resize step gives; "shorter" truncates the longer side as torchvision does. */
export function resizedShape({ height, width }, step) {
  if (step.rule === "exact") return step.size;
  const longer = Math.trunc((step.size * Math.max(height, width)) / Math.min(height, width));
  const shape = height <= width ? [step.size, longer] : [longer, step.size];
  if (shape[0] * shape[1] > MOST_PIXELS) {
    throw new PictureError(
      `a picture of ${width}x${height} pixels is too long and thin: with its shorter side resized to ${step.size} it ` +
        `would have ${(shape[0] * shape[1]).toLocaleString("en-US")} pixels`,
    );
  }
  return shape;
}

function centre(length, target) {
  // torchvision's center_crop: the padding before is rounded down, a crop's start is rounded half to even.
  return target > length ? -Math.floor((target - length) / 2) : roundEven((length - target) / 2);
}

function part({ data, width, channels }, [top, bottom, left, right]) {
  const line = (right - left) * channels;
  const made = new data.constructor((bottom - top) * line);
  for (let row = top; row < bottom; row++) {
    const from = (row * width + left) * channels;
    made.set(data.subarray(from, from + line), (row - top) * line);
  }
  return { data: made, height: bottom - top, width: right - left, channels };
}

function padded({ data, height, width, channels }, rows, columns, above, before) {
  const made = new data.constructor(rows * columns * channels);
  for (let row = 0; row < height; row++) {
    const line = data.subarray(row * width * channels, (row + 1) * width * channels);
    made.set(line, ((row + above) * columns + before) * channels);
  }
  return { data: made, height: rows, width: columns, channels };
}

/** The numbers that the network takes, float32 [C, H, W] or [H, W, C]. */
function valued({ data, height, width, channels }, steps) {
  const planes = steps.at(-1)?.order === "NCHW";
  const size = height * width;
  const rows = new Float32Array(size * channels);
  for (let channel = 0; channel < channels; channel++) {
    const changes = steps.flatMap((step) => changeOf(step, channel));
    for (let pixel = 0; pixel < size; pixel++) {
      let value = data[pixel * channels + channel];
      for (const change of changes) value = change(value);
      rows[planes ? channel * size + pixel : pixel * channels + channel] = value;
    }
  }
  return numbers(rows, planes ? [channels, height, width] : [height, width, channels]);
}

function changeOf(step, channel) {
  const number = step.values?.[step.values.length === 1 ? 0 : channel];
  if (step.step === "scale") return [(value) => value * step.factor];
  if (step.step === "mean") return [(value) => value - number];
  return step.step === "std" ? [(value) => value / number] : [];
}

function seenAs({ data, height, width, channels }, order) {
  let shown = data;
  if (!(data instanceof Uint8Array)) {
    shown = Uint8Array.from(data, (value) => Math.min(Math.max(roundEven(value), 0), 255));
  }
  if (order === "GREY") shown = repeated(shown);
  else if (order === "BGR") shown = turnedRound(shown);
  return numbers(shown, [height, width, order === "GREY" ? 3 : channels]);
}

function repeated(grey) {
  const made = new Uint8Array(3 * grey.length);
  grey.forEach((value, pixel) => made.fill(value, 3 * pixel, 3 * pixel + 3));
  return made;
}

/** The picture [H, W, 3] that a preprocessed row [C, H, W] or [H, W, C] stands for; null without preprocessing. */
export function undone(row, steps) {
  if (!steps.length || row.dims.length !== 3) return null;
  const byName = Object.fromEntries(steps.map((step) => [step.step, step]));
  const planes = byName.layout.order === "NCHW";
  const [channels, height, width] = planes ? row.dims : [row.dims[2], row.dims[0], row.dims[1]];
  if (channels !== 1 && channels !== 3) return null;
  const size = height * width;
  const made = new Uint8Array(3 * size);
  const turned = byName.colour?.order === "BGR";
  const of = (step, channel, other) => (step ? step.values[step.values.length === 1 ? 0 : channel] : other);
  for (let c = 0; c < 3; c++) {
    const channel = channels === 1 ? 0 : turned ? 2 - c : c;
    const [std, mean] = [of(byName.std, channel, 1), of(byName.mean, channel, 0)];
    for (let pixel = 0; pixel < size; pixel++) {
      const raw = row.data[planes ? channel * size + pixel : pixel * channels + channel];
      const value = (raw * std + mean) / (byName.scale?.factor ?? 1);
      made[3 * pixel + c] = Math.min(Math.max(roundEven(value), 0), 255);
    }
  }
  return numbers(made, [height, width, 3]);
}
