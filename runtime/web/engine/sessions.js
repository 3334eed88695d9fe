/** onnxruntime sessions on a bundle's graphs: opened when first needed, few at a time, one run after the other. */

import { BundleError, DeviceError, ModelError } from "./errors.js";
import { numbers } from "./numbers.js";
import { fromHalf, toHalf } from "./half.js";

// forward and the graphs of two methods; each holds its own copy of what onnxruntime repacks for its kernels.
const MOST_OPEN = 3;
// onnxruntime's messages for memory that can't be had, and those of WebAssembly. Whole phrases, since a message also
// quotes names of nodes and values, which may be anything.
const OUT_OF_MEMORY = new RegExp(
  [
    "Failed to allocate memory for requested buffer of size \\d+",
    "Available memory of \\d+ is smaller than requested",
    "\\bstd::bad_alloc\\s*$",
    "\\bbad allocation\\s*$",
    "Array buffer allocation failed",
    "\\bOut of memory\\b",
    "Aborted\\(OOM\\)",
    "cannot enlarge memory",
  ].join("|"),
  "m",
);
const NO_BACKEND = /no available backend found/;
const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  bool: Uint8Array,
};

/** The run that is under way, by what can have one at a time. */
const TURNS = new WeakMap();

/** A run needed more memory than there is; one of fewer rows may succeed. */
export class MemoryRanOutError extends ModelError {}

/** The open sessions of one bundle. */
export class Sessions {
  #ort;
  #store;
  #options;
  #open = new Map();
  #limits = new Map();

  constructor(ort, store, { providers, threads }) {
    this.#ort = ort;
    this.#store = store;
    const session = {
      // Else its threads look for work for tens of milliseconds after its run, on cores that the next one needs.
      force_spinning_stop: "1",
      // Else onnxruntime 1.32 rounds what enters a dense layer of quantised weights to 8 bits: up to 1 % of a score.
      qdq_matmulnbits_accuracy_level: "1",
    };
    const extra = { session };
    this.#options = { executionProviders: providers, logSeverityLevel: 4, extra };
    if (threads) this.#options.intraOpNumThreads = threads;
  }

  /** Runs a graph once: the outputs of these names; ModelError where it fails on these inputs. */
  run(graph, outputs, feeds) {
    return this.#alone(async () => {
      const session = await this.#session(graph);
      const tensors = Object.fromEntries(
        graph.inputs.map(({ name, dtype }) => [name, this.#tensor(feeds[name], dtype)]),
      );
      let found;
      try {
        found = await session.run(tensors, outputs);
      } catch (error) {
        const text = String(error?.message ?? error);
        if (OUT_OF_MEMORY.test(text)) {
          throw new MemoryRanOutError(`memory ran out in a run of ${graph.file}`, { cause: error });
        }
        throw new ModelError(`the graph ${graph.file} failed: ${text.split("\n")[0]}`, { cause: error });
      }
      return outputs.map((name) => arrayOf(found[name]));
    });
  }

  /** Opens a graph's session before it is needed. */
  async open(graph) {
    await this.#alone(() => this.#session(graph));
  }

  /** Closes all sessions, after the run that is under way. */
  async release() {
    await this.#alone(async () => {
      const sessions = [...this.#open.values()];
      this.#open.clear();
      for (const session of sessions) await session.release();
    });
  }

  /** The most rows of a run for which there was memory; null where it never ran out. */
  mostRows(graph) {
    return this.#limits.get(graph.name) ?? null;
  }

  /** Takes note that memory ran out in a run of so many rows: half of them is the most from now on. */
  tooMany(graph, rows) {
    this.#limits.set(graph.name, Math.max(1, Math.floor(rows / 2)));
  }

  #alone(task) {
    // onnxruntime-web can't have two runs under way, whichever sessions they are of.
    const whose = this.#ort.listSupportedBackends ? this : this.#ort;
    const mine = (TURNS.get(whose) ?? Promise.resolve()).then(task);
    TURNS.set(
      whose,
      mine.catch(() => {}),
    );
    return mine;
  }

  async #session(graph) {
    let session = this.#open.get(graph.name);
    this.#open.delete(graph.name);
    session ??= await this.#create(graph);
    this.#open.set(graph.name, session);
    if (this.#open.size > MOST_OPEN) {
      const [oldest, unused] = this.#open.entries().next().value;
      this.#open.delete(oldest);
      await unused.release();
    }
    return session;
  }

  async #create(graph) {
    const { model, externalData } = await this.#store.modelOf(graph);
    const options = externalData.length ? { ...this.#options, externalData } : this.#options;
    let session;
    try {
      session = await this.#ort.InferenceSession.create(model, options);
    } catch (error) {
      const text = String(error?.message ?? error).split("\n")[0];
      if (NO_BACKEND.test(text)) {
        const asked = this.#options.executionProviders.map((entry) => entry.name ?? entry).join(", ");
        throw new DeviceError(`${asked} was asked for, but onnxruntime can't have it here: ${text}`, { cause: error });
      }
      const version = this.#ort.env?.versions?.common ?? "?";
      throw new BundleError(`onnxruntime ${version} can't open ${this.#store.nameOf(graph)}: ${text}`, {
        cause: error,
      });
    }
    const names = new Set(graph.inputs.map((entry) => entry.name));
    const wrong = [...names].filter((name) => !session.inputNames.includes(name));
    wrong.push(...session.inputNames.filter((name) => !names.has(name)));
    if (wrong.length) {
      await session.release();
      const list = wrong.sort().join(", ");
      throw new BundleError(`${this.#store.nameOf(graph)} and explainer.json disagree about the inputs ${list}`);
    }
    return session;
  }

  #tensor(array, dtype) {
    if (dtype === "float16") return new this.#ort.Tensor(dtype, toHalf(array.data), array.dims);
    return new this.#ort.Tensor(dtype, cast(array.data, dtype), array.dims);
  }
}

/** Numbers in the array type of an element type. */
export function cast(data, dtype) {
  const wanted = ARRAYS[dtype];
  if (!wanted) throw new BundleError(`an input of ${dtype} is not supported by this engine`);
  if (data instanceof wanted) return data;
  if (wanted === BigInt64Array || wanted === BigUint64Array)
    return wanted.from(data, (value) => BigInt(Math.trunc(Number(value))));
  return typeof data[0] === "bigint" ? wanted.from(data, Number) : wanted.from(data);
}

/** The element type of an array of numbers. */
export function typeNameOf(data) {
  const found = Object.entries(ARRAYS).find(([, type]) => data instanceof type);
  return found ? found[0] : "numbers";
}

function arrayOf(tensor) {
  const dims = tensor.dims.map(Number);
  if (tensor.type === "float16") return numbers(fromHalf(tensor.data), dims);
  return numbers(tensor.data, dims);
}
