/**
 * Plan rules: a method's parameters and the image size become its table of steps, one row per term of the sum.
 *
 * Each rule is small, since every engine (Python, C++, JavaScript) carries the same ones; recorded tables keep them
 * equal.
 */

import { BundleError, ParameterError, quoted, unknown } from "./errors.js";
import { gaussLegendre } from "./integration.js";
import { numbers } from "./numbers.js";

/** The side of the grid that the graph of random masks has uniforms for; a step uses its first rows and columns. */
export const MOST_CELLS = 32;
export const RANDOM_MASKS = [
  "draw",
  "probability",
  "cells",
  "scale_row",
  "scale_column",
  "shifts_row",
  "shifts_column",
  "row",
  "flip",
];
const WINDOW = ["top", "left", "bottom", "right"];

const PLANS = {
  single: { columns: [], rule: () => tableOf([[]], 0) },
  draws: { columns: ["draw", "alpha", "weight", "multiply"], rule: draws },
  points: { columns: ["alpha", "weight"], rule: (parameters) => tableOf(gaussLegendre(parameters.steps), 2) },
  draws_points: { columns: ["draw", "alpha", "weight", "multiply"], rule: drawsPoints },
  windows: { columns: WINDOW, rule: windows },
  "windows.captum": { columns: WINDOW, rule: windowsOfCaptum },
  "windows.mindspore": { columns: WINDOW, rule: windowsOfMindspore },
  random_masks: { columns: RANDOM_MASKS, rule: randomMasks },
  "random_masks.mindspore": { columns: RANDOM_MASKS, rule: randomMasksOfMindspore },
};

/**
 * A plan rule `rule(parameters, height, width)` and its columns; BundleError for one that this version doesn't know.
 */
export function findPlan(name) {
  if (name in PLANS) return PLANS[name];
  throw new BundleError(`${unknown("plan rule", name, Object.keys(PLANS))}; pip install --upgrade onnxplain`);
}

/** Rows as a table of steps, float32 [K, columns]. */
export function tableOf(rows, columns = rows[0].length) {
  return numbers(Float32Array.from(rows.flat()), [rows.length, columns]);
}

/** One step for each noise draw, at the noisy image itself. */
function draws(parameters) {
  return tableOf(
    Array.from({ length: parameters.samples }, (_, draw) => [draw, 1, 1, 0]),
    4,
  );
}

/** Every point of the path for every noise draw, draw by draw. */
function drawsPoints(parameters) {
  const path = gaussLegendre(parameters.steps);
  const rows = Array.from({ length: parameters.samples }, (_, draw) => path.map((point) => [draw, ...point, 1]));
  return tableOf(rows.flat(), 4);
}

/**
 * A grid of windows, in pixels; the last of a row or column is shifted in, so that every border is covered. `window` 0
 * is an eighth of the shorter side, `stride` 0 half a window; both at least 1.
 */
function windows(parameters, height, width) {
  const window = windowOf(parameters, height, width, [eighth(height, width)]);
  const strides = sides(parameters.stride);
  if (strides.some((stride, axis) => stride > window[axis])) {
    throw new ParameterError(
      `stride=${quoted(parameters.stride)} is larger than the window, ${window[0]}x${window[1]}: the pixels between ` +
        "two windows would never be hidden",
    );
  }
  const [tops, lefts] = [height, width].map((side, axis) =>
    offsets(side, window[axis], strides[axis] || Math.max(1, Math.floor(window[axis] / 2))),
  );
  return grid(tops, lefts, window, [height, width]);
}

/** Captum's grid: ⌈(side − window) / stride⌉ + 1 positions a side, the last window cut off at the border. */
function windowsOfCaptum(parameters, height, width) {
  const window = windowOf(parameters, height, width, [eighth(height, width)]);
  const strides = sides(parameters.stride).map((stride) => stride || 1);
  const [tops, lefts] = [height, width].map((side, axis) =>
    multiples(Math.ceil((side - window[axis]) / strides[axis]) + 1, strides[axis]),
  );
  return grid(tops, lefts, window, [height, width]);
}

/** MindSpore's grid: ⌊(side − window) / stride⌋ + 1 positions a side; pixels behind the last window stay uncovered. */
function windowsOfMindspore(parameters, height, width) {
  const wide = (side, other) => (side > 32 ? Math.floor(side / 32) : other);
  const window = windowOf(parameters, height, width, [wide(height, 3), wide(width, 3)]);
  const [tops, lefts] = [height, width].map((side, axis) => {
    const stride = sides(parameters.stride)[axis] || wide(side, 1);
    return multiples(Math.floor((side - window[axis]) / stride) + 1, stride);
  });
  return grid(tops, lefts, window, [height, width]);
}

// (side + 4) / 8 without its rest is side / 8 rounded, without the round-half-even in which languages differ.
const eighth = (height, width) => Math.max(1, Math.floor((Math.min(height, width) + 4) / 8));
const multiples = (count, stride) => Array.from({ length: Math.max(count, 0) }, (_, number) => number * stride);
const sides = (value) => (Array.isArray(value) ? value : [value, value]);

/** The window's rows and columns. One number is cut to a side that is shorter; a pair has to fit. */
function windowOf(parameters, height, width, defaults) {
  if (height < 1 || width < 1) {
    throw new ParameterError("windows need an image with rows and columns; this network's input has none");
  }
  const given = parameters.window;
  const pair = sides(given);
  const [rows, columns] = [pair[0] || defaults[0], pair[1] || defaults.at(-1)];
  const longer = Math.max(height, width);
  const tooLarge = Array.isArray(given) ? rows > height || columns > width : Math.min(rows, columns) >= longer;
  if (longer > 1 && (tooLarge || (rows === height && columns === width))) {
    throw new ParameterError(
      `window=${quoted(given)} hides the whole image of ${height}x${width} pixels or is larger; give a number below ` +
        `${longer}, or a pair (rows, columns) of at most (${height}, ${width}) that is smaller on a side`,
    );
  }
  return [Math.min(rows, height), Math.min(columns, width)];
}

/** The windows at all pairs of offsets, row by row, cut off at the image's border. */
function grid(tops, lefts, [rows, columns], [height, width]) {
  const steps = tops.flatMap((top) =>
    lefts.map((left) => [top, left, Math.min(top + rows, height), Math.min(left + columns, width)]),
  );
  return tableOf(steps, 4);
}

function offsets(side, window, stride) {
  const last = Math.max(side - window, 0);
  const regular = multiples(Math.floor(last / stride) + 1, stride);
  return regular.at(-1) === last ? regular : [...regular, last];
}

/**
 * The masks of RISE: cells × cells stretched to (cells + 1)·⌈side / cells⌉ pixels, shifted by less than a cell; with
 * `design` "orthogonal" (where `probability` is 1/2) in blocks, all rows of a Hadamard matrix and their complements.
 */
function randomMasks(parameters, height, width) {
  const cells = cellsOf(parameters, height, width);
  const steps = [height, width].map((side) => Math.ceil(side / cells));
  const table = randomTable(
    parameters,
    cells,
    steps.map((step) => ((cells + 1) * step) / cells),
    steps,
  );
  if ((parameters.design ?? "independent") === "orthogonal" && parameters.probability === 0.5) {
    const rows = blockRows(cells);
    table.forEach((step, number) => {
      step[0] = Math.floor(number / (2 * rows));
      step[7] = Math.floor(number / 2) % rows;
      step[8] = number % 2;
    });
  }
  return tableOf(table, RANDOM_MASKS.length);
}

/** MindSpore's masks: the grid is stretched to 10 pixels more than the image and shifted by 0 to 10 of them. */
function randomMasksOfMindspore(parameters, height, width) {
  const cells = cellsOf(parameters, height, width);
  const table = randomTable(
    parameters,
    cells,
    [height, width].map((side) => (side + 10) / cells),
    [11, 11],
  );
  return tableOf(table, RANDOM_MASKS.length);
}

function cellsOf(parameters, height, width) {
  if (height < 1 || width < 1) {
    throw new ParameterError("random masks need an image with rows and columns; this network's input has none");
  }
  const { cells } = parameters;
  const most = Math.min(MOST_CELLS, height, width);
  if (cells < 2 || cells > most) {
    throw new ParameterError(`cells=${cells} is out of range for an image of ${height}x${width}: 2 to ${most}`);
  }
  return cells;
}

function randomTable(parameters, cells, scales, shifts) {
  return Array.from({ length: parameters.masks }, (_, draw) => [
    draw,
    parameters.probability,
    cells,
    ...scales,
    ...shifts,
    0,
    0,
  ]);
}

/** The rows of the Hadamard matrix in which every cell of a grid of cells × cells has a column of its own. */
export function blockRows(cells) {
  return 4 ** (32 - Math.clz32(cells - 1));
}
