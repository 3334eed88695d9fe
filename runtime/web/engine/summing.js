/** The engine's one loop: run a graph over chunks of images and steps, add up, finish. */

import { BundleError, ModelError, quoted, unknown } from "./errors.js";
import {
  broadcast,
  broadcastDims,
  columnsOf,
  eachPair,
  numbers,
  product,
  rowsOf,
  sameDims,
  sideBySide,
  stacked,
} from "./numbers.js";
import { MemoryRanOutError } from "./sessions.js";

/** A graph input's values; `perImage` ones are cut to a chunk's images, `perStep` ones to its steps (axis 1). */
export class Feed {
  constructor(values, { perImage = false, perStep = false } = {}) {
    Object.assign(this, { values, perImage, perStep });
  }

  /** The part that a chunk needs. */
  cut({ images, steps }) {
    const part = this.perImage ? rowsOf(this.values, ...images) : this.values;
    return this.perStep ? columnsOf(part, ...steps) : part;
  }

  /** The same with the values that `change` makes of them, where each image has its own. */
  changed(change) {
    return this.perImage ? new Feed(change(this.values), this) : this;
  }
}

/** total / norm, and 0 where norm is 0: a pixel that no step touched. */
function mean(total, norm) {
  return combined(total, norm, (sum, weight) => (weight === 0 ? 0 : sum / weight));
}

/** |total| / (1 + norm): MindSpore's occlusion, which counts one window more than there are. */
function coveredOnceMore(total, norm) {
  return combined(total, norm, (sum, weight) => Math.abs(sum) / (1 + weight));
}

function combined(total, norm, rule) {
  const data = new Float32Array(total.data.length);
  if (norm.data.length === 1) {
    for (let place = 0; place < data.length; place++) data[place] = rule(total.data[place], norm.data[0]);
  } else {
    eachPair(total.dims, total.dims, norm.dims, (place, a, b) => {
      data[place] = rule(total.data[a], norm.data[b]);
    });
  }
  return numbers(data, total.dims);
}

const FINISH = { mean, covered_once_more: coveredOnceMore };

/** The finish rule; BundleError for one that this version doesn't know. */
export function findFinish(name) {
  if (name in FINISH) return FINISH[name];
  throw new BundleError(`${unknown("finish rule", name, Object.keys(FINISH))}; pip install --upgrade onnxplain`);
}

/** The sums with further terms, in float64; sums that are in float64 already are changed in place. */
export function added(sums, parts) {
  return sums.map((total, output) => add(total, parts[output]));
}

function add(total, part) {
  const dims = broadcastDims(total.dims, part.dims);
  const inPlace = total.data instanceof Float64Array && sameDims(dims, total.dims);
  const sum = inPlace ? total : numbers(Float64Array.from(broadcast(total, dims).data, Number), dims);
  if (sameDims(dims, part.dims)) {
    for (let place = 0; place < sum.data.length; place++) sum.data[place] += part.data[place];
  } else {
    eachPair(dims, part.dims, [], (place, from) => {
      sum.data[place] += part.data[from];
    });
  }
  return sum;
}

/** Outputs [N, K, …] of some steps followed by those of others; of outputs without steps, the first. */
export function besideEachOther(before, after) {
  return before.map((array, output) => (array.dims.length > 1 ? sideBySide(array, after[output]) : array));
}

/**
 * The outputs of a run of one chunk; where memory doesn't suffice for it, of two runs of half as many rows each. `join`
 * puts together what two parts of the steps gave. ModelError where there is no memory for a single row.
 */
export async function runChunk(sessions, graph, outputs, feeds, chunk, join = added) {
  const most = sessions.mostRows(graph);
  if (most === null || chunk.rows <= most || chunk.rows === 1) {
    try {
      return await sessions.run(graph, outputs, inputsOf(graph, feeds, chunk));
    } catch (error) {
      if (!(error instanceof MemoryRanOutError)) throw error;
      if (chunk.rows === 1) {
        const megabytes = Number(((graph.bytesPerRow + graph.bytesPerRun) / 1e6).toPrecision(3));
        const what = `memory ran out in a run of a single row of ${graph.file}`;
        throw new ModelError(`${what}, which takes about ${megabytes} MB`, { cause: error });
      }
      sessions.tooMany(graph, chunk.rows);
    }
  }
  const halves = chunk.halves();
  const found = [];
  for (const half of halves) found.push(await runChunk(sessions, graph, outputs, feeds, half, join));
  if (halves[0].images === chunk.images) return join(...found);
  // What doesn't depend on the image is there once in each.
  const parts = found.map((part, side) => part.map((array) => forEach(array, halves[side])));
  return outputs.map((_, output) => stacked(parts.map((part) => part[output])));
}

function forEach(array, { images }) {
  return broadcast(array, [images[1] - images[0], ...array.dims.slice(1)]);
}

/** What a run of one chunk is fed, by the names of the graph's inputs. */
function inputsOf(graph, feeds, chunk) {
  return Object.fromEntries(
    graph.inputs.map(({ name, role, key }) => {
      if (!feeds[key]) {
        throw new BundleError(
          `${graph.file} has an input of role ${quoted(role)}, unknown here; pip install --upgrade onnxplain`,
        );
      }
      return [name, feeds[key].cut(chunk)];
    }),
  );
}

/** An array [N, …] that is filled for some images at a time; one part that is all of it isn't copied. */
export class Joined {
  constructor(count, Data = null) {
    this.count = count;
    this.Data = Data;
    this.values = null;
  }

  /** Takes the values of some images, [n, …], or [1, …] where they are the same for all of them. */
  put([first, past], part) {
    const Data = this.Data ?? part.data.constructor;
    if (past - first === this.count && this.count === part.dims[0]) {
      this.values = part.data instanceof Data ? part : numbers(Data.from(part.data), part.dims);
      return;
    }
    const rest = part.dims.slice(1);
    this.values ??= numbers(new Data(this.count * product(rest)), [this.count, ...rest]);
    const wide = broadcast(part, [past - first, ...rest]);
    this.values.data.set(wide.data, first * product(rest));
  }
}
