/**
 * How many rows enter the network in one run, and which images and steps share a run.
 *
 * A method is a sum over steps, so any split gives the same map; only memory and speed depend on it.
 */

import { ParameterError, quoted } from "./errors.js";

const MOST_ROWS = 16;
const LEAST_ROWS = 2;
const BEST_BYTES = 64e6;
// An accelerator needs more at once to be busy.
const MOST_ROWS_ACCELERATED = 64;
// Of the memory that is free now; the rest is for the pictures, the sums, and whoever else is on the machine.
const SAFE_SHARE = 0.5;
/** A browser doesn't say what is free; WebAssembly has 4 GB at most. */
const FREE_WHERE_UNKNOWN = 2e9;
const UNITS = { "": 1, B: 1, KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 };

/** What one run takes: some of the images, some of the steps; the `first` or `last` of these images. */
export class Chunk {
  constructor(images, steps, first, last) {
    Object.assign(this, { images, steps, first, last });
  }

  /** Images times steps. */
  get rows() {
    return (this.images[1] - this.images[0]) * (this.steps[1] - this.steps[0]);
  }

  /** The same in two parts: of the steps where there are several, else of the images. */
  halves() {
    const several = this.steps[1] - this.steps[0] > 1;
    const [start, end] = several ? this.steps : this.images;
    const middle = Math.floor((start + end) / 2);
    if (!several) {
      return [
        [start, middle],
        [middle, end],
      ].map((part) => new Chunk(part, this.steps, this.first, this.last));
    }
    return [
      new Chunk(this.images, [start, middle], this.first, false),
      new Chunk(this.images, [middle, end], false, this.last),
    ];
  }
}

/**
 * Runs of at most `rows` rows (images times steps) that cover everything; the steps of the same images together.
 *
 * They take all steps of few images, or with `shared` few steps of as many images as make the fewest runs: what is drawn
 * for a step is then drawn once for these.
 */
export function chunks(images, steps, rows, { shared = false } = {}) {
  const together = shared ? mostTogether(images, steps, rows) : Math.max(1, Math.floor(rows / Math.max(1, steps)));
  const runs = [];
  for (const imagePart of split(images, together)) {
    const taken = imagePart[1] - imagePart[0];
    // No later run finds the memory of the first too small.
    const most = runs.length ? runs[0].rows : rows;
    for (const stepPart of split(steps, Math.max(1, Math.floor(most / taken)))) {
      runs.push(new Chunk(imagePart, stepPart, stepPart[0] === 0, stepPart[1] === steps));
    }
  }
  return runs;
}

/** The most images for each run with which the runs are as few as they can be. */
function mostTogether(images, steps, rows) {
  const ceil = (total, part) => Math.ceil(total / part);
  const runs = (together) => {
    const groups = ceil(images, together);
    const [fewer, larger] = [Math.floor(images / groups), images % groups];
    const most = ceil(images, groups);
    const first = ceil(steps, Math.floor(rows / most)); // of the first group, none smaller than a later one
    return larger * first + (groups - larger) * ceil(steps, Math.floor((most * ceil(steps, first)) / fewer));
  };
  const tried = Array.from({ length: Math.min(images, rows) }, (_, less) => Math.min(images, rows) - less);
  return tried.reduce((best, together) => (runs(together) < runs(best) ? together : best), tried[0] ?? 1);
}

/** Parts of nearly equal length, none longer than `most`, the longer ones first: later runs reuse their memory. */
function split(total, most) {
  const count = Math.ceil(total / most);
  const shorter = count ? Math.floor(total / count) : 0;
  const longer = count ? total % count : 0;
  const edge = (number) => number * shorter + Math.min(number, longer);
  return Array.from({ length: count }, (_, number) => [edge(number), edge(number + 1)]);
}

/** How many rows a run takes: what was asked for or should suit, and never more than fit. */
export class RunSizes {
  constructor({ accelerated, threads, rows }) {
    this.accelerated = accelerated;
    this.threads = threads;
    this.fixed = rows ?? null;
  }

  /** Images times steps of a run, beside what is `held`; ParameterError where `memory` isn't enough for one. */
  rows(graph, memory, targets = 1, held = { image: 0, row: 0, call: 0 }, images = 1) {
    const beside = graph.bytesPerRun + held.call + images * held.image;
    const aRow = graph.bytesPerRow + Math.floor(held.row / targets);
    return rowsPerRun(aRow, memory, targets, this.#wanted(graph, targets), beside);
  }

  #wanted(graph, targets) {
    if (this.fixed !== null) return this.fixed * targets;
    if (this.accelerated) return MOST_ROWS_ACCELERATED;
    return usefulRows(graph.bytesPerRow, this.threads);
  }
}

/** How many rows a run on a CPU should have: beyond what its caches hold, each costs more. */
export function usefulRows(bytesPerRow, threads, most = MOST_ROWS) {
  const best = Math.floor(BEST_BYTES / Math.max(1, bytesPerRow));
  return Math.min(most, Math.max(LEAST_ROWS, threads, best));
}

/** The same for bytes of a row and a useful number of rows. */
export function rowsPerRun(bytesPerRow, memory, targets, most, beside) {
  const needed = Math.max(1, bytesPerRow * targets);
  const useful = Math.max(1, Math.floor(most / targets));
  const fits = Math.floor((room(memory) - beside) / needed);
  if (fits < 1 && memory !== null) {
    const megabytes = Math.ceil((needed + beside) / 1e5) / 10;
    const text = Number.isInteger(megabytes) ? megabytes.toFixed(1) : megabytes;
    throw new ParameterError(`memory=${quoted(memory)} is too little: one run of one image needs ${text} MB`);
  }
  return Math.max(1, Math.min(fits, useful));
}

/** Bytes that a call may add to the process: `memory`, or half of what is free now. */
export function room(memory) {
  if (memory !== null) return parseMemory(memory);
  const free = globalThis.process?.availableMemory?.() ?? FREE_WHERE_UNKNOWN;
  return Math.floor(Math.max(free, 1) * SAFE_SHARE);
}

/** The images of a call in groups, so that what is held for each takes at most half of the room. */
export function imagesAtOnce(images, available, held, beside) {
  const half = Math.floor((available - beside) / 2);
  return split(images, Math.max(1, Math.floor(half / Math.max(1, held))));
}

/** Bytes from 2e9, "2GB" or "500 MB"; 1 GB is 10^9 bytes. */
export function parseMemory(memory) {
  let size = memory;
  if (!Number.isInteger(memory)) {
    const match = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(String(memory));
    const unit = match && UNITS[match[2].toUpperCase()];
    if (!unit) {
      throw new ParameterError(
        `memory=${quoted(memory)} is no amount of memory; write 2GB, 500MB, or bytes as a number`,
      );
    }
    size = Math.trunc(Number(match[1]) * unit);
  }
  if (size < 1) throw new ParameterError(`memory=${quoted(memory)} must be more than 0`);
  return size;
}
