/** Numbers with their axes: {data, dims}, row by row. A batch is cut along its first axis without copying. */

import { ParameterError } from "./errors.js";

/** The product of some axes. */
export function product(dims) {
  return dims.reduce((all, size) => all * size, 1);
}

/** Numbers with axes; `data` is not copied. */
export function numbers(data, dims) {
  return { data, dims: [...dims] };
}

/** The part of an array from `first` up to, and without, `past` along the first axis: a view. */
export function rowsOf(array, first, past) {
  const size = product(array.dims.slice(1));
  if (first === 0 && past === array.dims[0]) return array;
  return numbers(array.data.subarray(first * size, past * size), [past - first, ...array.dims.slice(1)]);
}

/** The rows of these numbers, a copy. */
export function picked(array, rows) {
  const size = product(array.dims.slice(1));
  const data = new array.data.constructor(rows.length * size);
  rows.forEach((row, place) => data.set(array.data.subarray(row * size, (row + 1) * size), place * size));
  return numbers(data, [rows.length, ...array.dims.slice(1)]);
}

/** The part of an array [N, K, …] from `first` up to `past` along the second axis. */
export function columnsOf(array, first, past) {
  const [count, all, ...rest] = array.dims;
  if (first === 0 && past === all) return array;
  const size = product(rest);
  if (count === 1) return numbers(array.data.subarray(first * size, past * size), [1, past - first, ...rest]);
  const width = (past - first) * size;
  const data = new array.data.constructor(count * width);
  for (let row = 0; row < count; row++) {
    data.set(array.data.subarray((row * all + first) * size, (row * all + past) * size), row * width);
  }
  return numbers(data, [count, past - first, ...rest]);
}

/** Arrays one after the other along the first axis. */
export function stacked(arrays) {
  if (arrays.length === 1) return arrays[0];
  const data = new arrays[0].data.constructor(arrays.reduce((all, array) => all + array.data.length, 0));
  let place = 0;
  for (const array of arrays) {
    data.set(array.data, place);
    place += array.data.length;
  }
  return numbers(data, [arrays.reduce((all, array) => all + array.dims[0], 0), ...arrays[0].dims.slice(1)]);
}

/** Arrays [N, K, …] one after the other along the second axis. */
export function sideBySide(before, after) {
  const [count, one, ...rest] = before.dims;
  const size = product(rest);
  const other = after.dims[1];
  const data = new before.data.constructor(count * (one + other) * size);
  for (let row = 0; row < count; row++) {
    const start = row * (one + other) * size;
    data.set(before.data.subarray(row * one * size, (row + 1) * one * size), start);
    data.set(after.data.subarray(row * other * size, (row + 1) * other * size), start + one * size);
  }
  return numbers(data, [count, one + other, ...rest]);
}

/** The axes of two arrays together, or null where they don't fit. */
export function broadcastDims(a, b) {
  const rank = Math.max(a.length, b.length);
  const [wideA, wideB] = [a, b].map((dims) => [...Array(rank - dims.length).fill(1), ...dims]);
  if (wideA.some((size, axis) => size !== wideB[axis] && size !== 1 && wideB[axis] !== 1)) return null;
  return wideA.map((size, axis) => (size === 1 ? wideB[axis] : size));
}

/** Whether an array of axes `dims` can stand for one of axes `wide`. */
export function broadcastsTo(dims, wide) {
  const both = broadcastDims(dims, wide);
  return both !== null && both.length === wide.length && both.every((size, axis) => size === wide[axis]);
}

/** For each element of an array of axes `wide`, the places of the elements of two others that belong to it. */
export function eachPair(wide, a, b, visit) {
  const [stepsA, stepsB] = [a, b].map((dims) => stridesFor(dims, wide));
  const last = wide.length - 1;
  const inner = last < 0 ? 1 : wide[last];
  const [stepA, stepB] = last < 0 ? [0, 0] : [stepsA[last], stepsB[last]];
  let place = 0;
  const walk = (axis, atA, atB) => {
    if (axis >= last) {
      for (let i = 0; i < inner; i++) visit(place++, atA + i * stepA, atB + i * stepB);
      return;
    }
    for (let i = 0; i < wide[axis]; i++) walk(axis + 1, atA + i * stepsA[axis], atB + i * stepsB[axis]);
  };
  walk(0, 0, 0);
}

function stridesFor(dims, wide) {
  const steps = Array(wide.length).fill(0);
  let step = 1;
  for (let axis = dims.length - 1; axis >= 0; axis--) {
    if (dims[axis] !== 1) steps[axis + wide.length - dims.length] = step;
    step *= dims[axis];
  }
  return steps;
}

/** An array repeated to the axes `dims`; itself where it has them. */
export function broadcast(array, dims) {
  if (array.dims.length === dims.length && array.dims.every((size, axis) => size === dims[axis])) return array;
  if (!broadcastsTo(array.dims, dims)) throw new ParameterError(`[${array.dims}] does not broadcast to [${dims}]`);
  const data = new array.data.constructor(product(dims));
  eachPair(dims, array.dims, [], (place, from) => {
    data[place] = array.data[from];
  });
  return numbers(data, dims);
}

/** Whether two lists of axes are the same. */
export function sameDims(a, b) {
  return a.length === b.length && a.every((size, axis) => size === b[axis]);
}

/** The first place of the largest number of a stretch of an array. */
export function argmax(data, first, past) {
  let best = first;
  for (let place = first + 1; place < past; place++) if (data[place] > data[best]) best = place;
  return best - first;
}

/** Rounded to a whole number, halves to the even one, as Python and numpy round. */
export function roundEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/** Whether all numbers are finite. */
export function allFinite(data) {
  for (let place = 0; place < data.length; place++) if (!Number.isFinite(Number(data[place]))) return false;
  return true;
}

/** The order of numbers from small to large, equal ones as they come. */
export function argsort(values) {
  return Array.from(values, (_, place) => place).sort((a, b) => values[a] - values[b] || a - b);
}

/** The number that would stand at a place if the numbers were sorted (Hoare's selection); changes their order. */
export function selected(data, place) {
  let [low, high] = [0, data.length - 1];
  while (low < high) {
    const pivot = data[(low + high) >> 1];
    let [i, j] = [low, high];
    while (i <= j) {
      while (data[i] < pivot) i++;
      while (data[j] > pivot) j--;
      if (i > j) break;
      const value = data[i];
      data[i++] = data[j];
      data[j--] = value;
    }
    if (place <= j) high = j;
    else if (place >= i) low = i;
    else return data[place];
  }
  return data[place];
}

/** 0, 1, …, count − 1. */
export function range(count) {
  return Array.from({ length: count }, (_, number) => number);
}
