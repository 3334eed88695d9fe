/** What explain returns: raw maps, scores, and what is needed to say later how they were made. */

import { ParameterError } from "./errors.js";
import { atSize, heatmap, overlay, overlayOriginal, signedMap } from "./heatmap.js";
import { SPATIAL } from "./images.js";
import { numbers, product, rowsOf } from "./numbers.js";
import { nameOf, ranked } from "./targets.js";

/** Maps of N images by one method; see onnxplain.d.ts for what its fields are. */
export class Result {
  #images;
  #several;
  #classNames;
  #classAxis;

  constructor(fields, { images, several, classNames, classAxis }) {
    Object.assign(this, fields);
    [this.#images, this.#several, this.#classNames, this.#classAxis] = [images, several, classNames, classAxis];
  }

  get length() {
    return this.attribution.dims[0];
  }

  /** Whether the maps have rows and columns, so that they can be drawn. */
  get hasPictures() {
    return this.layout in SPATIAL && this.attribution.dims.length - (this.#several ? 2 : 1) === 3;
  }

  heatmap(options = {}) {
    return heatmap(this.attribution, this.#drawable(), options);
  }

  signed(percentile = 99) {
    return signedMap(this.attribution, this.#drawable(), percentile);
  }

  seen(index, channels = 3) {
    const seen = this.#image(index).seen;
    return seen && drawnPicture(withAlpha(seen, channels));
  }

  overlay(options = {}) {
    const heat = this.heatmap(options);
    const [height, width] = heat.dims.slice(-2);
    const targets = this.#several ? heat.dims[1] : 1;
    const maps = numbers(heat.data, [product(heat.dims.slice(0, -2)), height, width]);
    const drawn = Array.from({ length: maps.dims[0] }, (_, map) => {
      const seen = this.#seenOf(Math.floor(map / targets));
      return overlay(seen, atSize(oneMap(maps, map), ...seen.dims.slice(0, 2)), options);
    });
    const data = new Uint8ClampedArray(drawn.length * (drawn[0]?.data.length ?? 0));
    drawn.forEach((one, map) => data.set(one.data, map * one.data.length));
    return numbers(data, [...heat.dims.slice(0, -2), ...(drawn[0]?.dims ?? [height, width, options.channels ?? 3])]);
  }

  overlayOriginal(index, options = {}) {
    const image = this.#image(index);
    const heat = this.heatmap(options);
    const targets = this.#several ? heat.dims[1] : 1;
    const maps = numbers(heat.data, [product(heat.dims.slice(0, -2)), ...heat.dims.slice(-2)]);
    const map = oneMap(maps, index * targets + (options.target ?? 0));
    if (!image.original) {
      const seen = this.#seenOf(index);
      return drawnPicture(overlay(seen, atSize(map, ...seen.dims.slice(0, 2)), options));
    }
    const { data, width, height } = image.original;
    return drawnPicture(overlayOriginal(numbers(data, [height, width, 3]), map, image.box, options));
  }

  predictions(index, count = 5) {
    return predictionsOf(this.scores, this.probabilities, this.#classNames, this.#classAxis, index, count);
  }

  #image(index) {
    if (!Number.isInteger(index) || index < 0 || index >= this.length) {
      throw new ParameterError(`there is no image ${index}: the result has ${this.length}`);
    }
    return this.#images[index];
  }

  #seenOf(index) {
    const { seen, name } = this.#image(index);
    if (seen) return seen;
    throw new ParameterError(`${name} came as an array of a network without preprocessing: draw .heatmap() yourself`);
  }

  #drawable() {
    if (this.hasPictures) return this.layout;
    throw new ParameterError("this network's input is no picture, so there is nothing to draw; use .attribution");
  }
}

/** The best classes of one image; none where the output holds no classes. */
export function predictionsOf(scores, probabilities, classNames, classAxis, index, count) {
  if (classAxis !== 1 || scores.dims.length !== 2) return [];
  const classes = scores.dims[1];
  return ranked(scores.data, index * classes, classes)
    .slice(0, count)
    .map((target) => ({
      target,
      label: nameOf(target, classNames),
      score: scores.data[index * classes + target],
      probability: probabilities.data[index * classes + target],
    }));
}

function oneMap(maps, map) {
  const one = rowsOf(maps, map, map + 1);
  return numbers(one.data, one.dims.slice(1));
}

function withAlpha({ data, dims: [height, width] }, channels) {
  if (channels === 3) return numbers(Uint8ClampedArray.from(data), [height, width, 3]);
  const made = new Uint8ClampedArray(height * width * 4).fill(255);
  for (let pixel = 0; pixel < height * width; pixel++) made.set(data.subarray(3 * pixel, 3 * pixel + 3), 4 * pixel);
  return numbers(made, [height, width, 4]);
}

const drawnPicture = ({ data, dims: [height, width, channels] }) => ({ data, width, height, channels });
