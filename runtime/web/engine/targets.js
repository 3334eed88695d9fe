/** Which classes are explained: numbers and names become a table [N, T]. */

import { ParameterError, quoted, unknown } from "./errors.js";
import { argmax, numbers, picked } from "./numbers.js";

/** The target that stands for an image's top class, as graphs that tell the scores take it. */
export const TOP = -1;
/** The target of a map that a cotangent of the caller's explains. */
export const FREE = -1;

/**
 * What is explained: `table`, a list of T class numbers for each image; `several` where more than one was asked for.
 */
export class Chosen {
  constructor(table, several, cotangents = null) {
    [this.table, this.several, this.cotangents] = [table, several, cotangents];
    this.count = table.length ? table[0].length : 1;
  }

  /** Whether every target is known. */
  get settled() {
    return this.cotangents !== null || !this.table.some((row) => row.includes(TOP));
  }

  /** The same with each image's top class, of equal scores the first, in the place of TOP. */
  by(scores) {
    if (this.settled) return this;
    const top = topOf(scores);
    return new Chosen(
      this.table.map((row, image) => row.map((t) => (t === TOP ? top[image] : t))),
      this.several,
    );
  }

  /** What is explained of the images of these numbers. */
  at(images) {
    const rows = this.cotangents && picked(this.cotangents, images);
    return new Chosen(
      images.map((image) => this.table[image]),
      this.several,
      rows,
    );
  }

  /** One of the targets alone. */
  only(target) {
    const table = this.table.map((row) => [row[target]]);
    return new Chosen(table, this.several, this.cotangents && oneTarget(this.cotangents, target));
  }

  /** What is explained of scores [N, …]: float32 [N, T]. */
  of(scores) {
    const size = scores.data.length / (scores.dims[0] || 1);
    const found = new Float32Array(this.table.length * this.count);
    this.table.forEach((row, image) => {
      row.forEach((target, place) => {
        const at = image * this.count + place;
        found[at] = this.cotangents
          ? dot(this.cotangents.data, at, scores.data, image, size)
          : scores.data[image * size + target];
      });
    });
    return numbers(found, [this.table.length, this.count]);
  }

  /** What graphs are fed: int64 [N, T]. */
  get fed() {
    return numbers(BigInt64Array.from(this.table.flat(), BigInt), [this.table.length, this.count]);
  }

  /** The targets' labels, for each image one or a list. */
  names(labels) {
    const names = this.table.map((row) => row.map((t) => (t === FREE ? "cotangent" : nameOf(t, labels))));
    return this.several ? names : names.map((row) => row[0]);
  }
}

function dot(weights, row, values, image, size) {
  let sum = 0;
  for (let place = 0; place < size; place++) sum += weights[row * size + place] * values[image * size + place];
  return sum;
}

function oneTarget(array, target) {
  const [count, targets, ...rest] = array.dims;
  const size = array.data.length / (count * targets);
  const data = new Float32Array(count * size);
  for (let row = 0; row < count; row++) {
    const from = (row * targets + target) * size;
    data.set(array.data.subarray(from, from + size), row * size);
  }
  return numbers(data, [count, 1, ...rest]);
}

/** The class with the highest score of each image, of equal ones the first. */
export function topOf({ data, dims: [count, classes] }) {
  return Array.from({ length: count }, (_, image) => argmax(data, image * classes, (image + 1) * classes));
}

/** What `targets` asks for, of `count` images whose scores may not be known yet: TOP stands for the top class. */
export function asked(targets, count, classes, labels) {
  let perImage;
  if (targets === null || targets === undefined || typeof targets === "string" || typeof targets === "number") {
    perImage = Array(count).fill(targets ?? null);
  } else if (typeof targets !== "object" || typeof targets[Symbol.iterator] !== "function") {
    throw new ParameterError(`target ${quoted(targets)} is no class number or name`);
  } else {
    perImage = [...targets];
    if (perImage.length !== count) {
      const hint = count === 1 ? "; several targets per picture are a list of lists, as [[3, 5]]" : "";
      throw new ParameterError(`${perImage.length} targets for ${count} pictures${hint}`);
    }
  }
  const isList = (entry) => Array.isArray(entry) || ArrayBuffer.isView(entry);
  const several = perImage.length > 0 && perImage.every(isList);
  const rows = perImage.map((entry) => (several ? [...entry] : [entry]));
  if (new Set(rows.map((row) => row.length)).size > 1 || (rows.length && !rows[0].length)) {
    throw new ParameterError("every picture needs the same number of targets, and at least one");
  }
  const number = (entry) => (entry === null || entry === undefined ? TOP : classOf(entry, classes, labels));
  return new Chosen(
    rows.map((row) => row.map(number)),
    several,
  );
}

/** So many classes with the highest scores of each image. */
export function bestOf(best, targets, scores) {
  const [count, classes] = scores.dims;
  if (targets !== null && targets !== undefined) {
    throw new ParameterError("top= and targets= both say what is explained; give one of them");
  }
  if (!Number.isInteger(best) || best < 1 || best > classes) {
    throw new ParameterError(`top=${quoted(best)} must be a whole number from 1 to ${classes}, the number of classes`);
  }
  return new Chosen(
    Array.from({ length: count }, (_, image) => ranked(scores.data, image * classes, classes).slice(0, best)),
    true,
  );
}

/** The numbers of some classes by their score, ties in the classes' order. */
export function ranked(data, first, classes) {
  const order = Array.from({ length: classes }, (_, number) => number);
  return order.sort((a, b) => data[first + b] - data[first + a] || a - b);
}

/** The number of the class with this number or name. */
export function classOf(target, classes, labels) {
  if (typeof target === "string") return named(target, labels);
  if (!Number.isInteger(target)) throw new ParameterError(`target ${quoted(target)} is no class number or name`);
  if (target < 0 || target >= classes) {
    throw new ParameterError(`target ${target} is out of range: the network has classes 0 to ${classes - 1}`);
  }
  return target;
}

function named(name, labels) {
  if (labels === null) {
    throw new ParameterError(`target ${quoted(name)} is a name, but the bundle has no labels; give the class number`);
  }
  const wanted = name.trim().toLowerCase();
  const words = labels.map((label) =>
    label
      .toLowerCase()
      .split(",")
      .map((word) => word.trim()),
  );
  const places = (fits) => labels.flatMap((_, place) => (fits(place) ? [place] : []));
  let found = places((place) => labels[place].trim().toLowerCase() === wanted);
  // ImageNet's labels are lists of synonyms: "tench, Tinca tinca".
  if (!found.length) found = places((place) => words[place].includes(wanted));
  if (!found.length) {
    const known = new Set(labels.flatMap((label) => label.split(",").map((word) => word.trim())));
    throw new ParameterError(unknown("target", name, known));
  }
  if (found.length > 1) {
    throw new ParameterError(
      `target ${quoted(name)} is the name of several classes: ${found.join(", ")}; give the number`,
    );
  }
  return found[0];
}

/** A class's label, or its number where the bundle has no labels. */
export function nameOf(target, labels) {
  return labels !== null && target < labels.length ? labels[target] : String(target);
}
