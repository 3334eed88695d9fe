/** Reads and checks `explainer.json`, the description of a bundle that export writes and every engine reads. */

import { BundleError, OnnxplainError, quoted } from "./errors.js";
import { DESCRIPTION, fileName, filesOf, parsed } from "./files.js";
import { metadataOf } from "./model_file.js";
import { checkSteps } from "./preprocessing_steps.js";
import { sha256 } from "./sha256.js";

export const FORMAT = 1;
const KINDS = ["int", "float", "bool", "size", "choice", "image", "array", "layer"];
const ACTIVATIONS = ["softmax", "sigmoid", "none"];
export const EXPLAINS = ["logits", "probabilities"];
const MEASURES = ["sensitivity", "contribution", "importance"];
const METADATA_KEY = "onnxplain";

/** Opens a source: its description, checked, and the files beside it. */
export async function readBundle(source, options) {
  const files = await filesOf(source, options);
  const bytes = await files.read(files.single ?? DESCRIPTION);
  if (bytes === null) {
    const what = files.single === null ? "has no explainer.json, so it is no bundle" : "does not exist";
    throw new BundleError(`${files.place} ${what}`);
  }
  const place = files.single === null ? fileName(files, DESCRIPTION) : files.place;
  const text = files.single === null ? new TextDecoder().decode(bytes) : descriptionIn(bytes, place);
  const hash = await sha256(files.single === null ? bytes : new TextEncoder().encode(text));
  const bundle = described(files, place, hash, parsed(text, place));
  const store = new Store(bundle, files, files.single === null ? null : bytes, options.verify ?? true);
  if (!files.lazy && files.single === null) await store.checkAll();
  return { bundle, store };
}

function descriptionIn(bytes, place) {
  let text;
  try {
    text = metadataOf(bytes)[METADATA_KEY];
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  if (text !== undefined) return text;
  throw new BundleError(
    `${place} is a file, not a bundle; a bundle is the folder that onnxplain export writes, or the file that it ` +
      "writes with --single METHOD",
  );
}

function described(files, place, hash, data) {
  const number = data !== null && typeof data === "object" ? data.format : undefined;
  if (!Number.isInteger(number)) {
    throw new BundleError(`${place} names no format, so it is no description of a bundle`);
  }
  if (number > FORMAT) {
    throw new BundleError(
      `${files.place} has format ${number}, made by onnxplain ${data.onnxplain ?? "?"}; this version reads up to ` +
        `${FORMAT}: pip install --upgrade onnxplain`,
    );
  }
  try {
    return bundleOf(files, hash, data);
  } catch (error) {
    if (!(error instanceof TypeError || error instanceof Incomplete || error instanceof OnnxplainError)) throw error;
    throw new BundleError(`${place} is incomplete: ${error.message}; export the bundle again`, { cause: error });
  }
}

class Incomplete extends Error {}

function bundleOf(files, hash, data) {
  const preprocessing = data.preprocessing ?? {};
  const inputs = need(data, "inputs").map(inputOf);
  const outputs = need(data, "outputs").map(outputOf);
  const bundle = {
    path: files.place,
    sha256: hash,
    version: need(data, "onnxplain"),
    name: need(data, "name"),
    source: need(data, "source"),
    inputs,
    inside: data.value
      ? { name: need(data.value, "name"), shape: data.value.shape, layout: data.value.layout ?? null }
      : null,
    outputs,
    preset: preprocessing.preset ?? null,
    assumed: Boolean(preprocessing.assumed),
    steps: preprocessing.steps?.length ? checkSteps(preprocessing.steps) : [],
    weights: data.weights ? { file: need(data.weights, "file"), sha256: need(data.weights, "sha256") } : null,
    graphs: table(need(data, "graphs"), graphOf),
    methods: table(need(data, "methods"), methodOf),
    leftOut: data.left_out ?? {},
    layers: (data.layers ?? []).map(layerOf),
    verification: data.verification ?? {},
    detector: data.detector ?? null,
    single: data.single ? singleOf(data.single) : null,
  };
  checkLinks(bundle);
  bundle.image = inputs.find((entry) => entry.explained);
  bundle.value = bundle.inside ?? bundle.image;
  bundle.others = inputs.filter((entry) => !entry.explained);
  bundle.scores = outputs.find((entry) => entry.explained);
  bundle.free = Object.values(bundle.graphs).some((graph) => takes(graph, "cotangent"));
  return bundle;
}

/** Whether an input of this role has to be fed to a graph. */
export function takes(graph, role) {
  return graph.inputs.some((entry) => entry.role === role);
}

/** Whether a run of a graph draws noise or masks for its steps, the same for all of its images. */
export function draws(graph) {
  return (graph.columns ?? []).includes("draw");
}

function need(data, name) {
  if (data[name] === undefined) throw new Incomplete(`${quoted(name)} is missing`);
  return data[name];
}

function table(data, read) {
  return Object.fromEntries(Object.entries(data).map(([name, entry]) => [name, read(entry, name)]));
}

function oneOf(value, known) {
  if (!known.includes(value)) throw new Incomplete(`${quoted(value)} is none of ${known.join(", ")}`);
  return value;
}

function inputOf(data) {
  const shape = need(data, "shape");
  return {
    name: need(data, "name"),
    dtype: need(data, "dtype"),
    shape,
    layout: data.layout ?? null,
    explained: Boolean(need(data, "explained")),
    batched: shape.length > 0 && typeof shape[0] !== "number",
  };
}

function outputOf(data) {
  return {
    name: need(data, "name"),
    shape: need(data, "shape"),
    explained: Boolean(need(data, "explained")),
    classes: data.classes ?? null,
    classAxis: data.class_axis === undefined ? 1 : data.class_axis,
    activation: oneOf(data.activation ?? "none", ACTIVATIONS),
    labels: data.labels?.length ? data.labels.map(String) : null,
  };
}

function graphOf(data, name) {
  const inputs = need(data, "inputs").map((entry) => ({
    name: need(entry, "name"),
    role: need(entry, "role"),
    dtype: need(entry, "dtype"),
    shape: need(entry, "shape"),
    key: entry.role === "input" ? `input ${entry.name}` : entry.role,
  }));
  return {
    name,
    file: need(data, "file"),
    sha256: need(data, "sha256"),
    inputs,
    outputs: need(data, "outputs").map((output) => need(output, "name")),
    columns: data.columns ?? null,
    bytesPerRow: need(data, "bytes_per_row"),
    bytesPerRun: data.bytes_per_run ?? 0,
    tellsScores: Boolean(data.tells_scores),
  };
}

function methodOf(data, name) {
  return {
    name,
    graph: need(data, "graph"),
    plan: need(data, "plan"),
    finish: need(data, "finish"),
    explains: oneOf(need(data, "explains"), EXPLAINS),
    measures: oneOf(data.measures ?? "sensitivity", MEASURES),
    parameters: table(need(data, "parameters"), parameterOf),
    loop: data.loop ?? "sum",
    beside: data.beside ?? [],
    about: data.about ?? "",
  };
}

function parameterOf(data, name) {
  return {
    name,
    kind: oneOf(need(data, "kind"), KINDS),
    default: need(data, "default"),
    minimum: data.minimum ?? null,
    maximum: data.maximum ?? null,
    help: data.help ?? "",
    choices: data.choices ?? [],
  };
}

function layerOf(data) {
  return {
    name: need(data, "name"),
    shape: need(data, "shape"),
    layout: need(data, "layout"),
    grid: need(data, "grid"),
    prefix: data.prefix ?? 0,
    graph: need(data, "graph"),
    tail: data.tail ?? null,
    default: Boolean(data.default),
  };
}

function singleOf(data) {
  return {
    method: need(data, "method"),
    parameters: data.parameters ?? {},
    free: data.free ?? [],
    rows: data.rows ?? 1,
    pictureInput: Boolean(data.picture_input),
    pictureOutput: Boolean(data.picture_output),
  };
}

function checkLinks(bundle) {
  for (const [kind, entries] of [
    ["input", bundle.inputs],
    ["output", bundle.outputs],
  ]) {
    if (entries.filter((entry) => entry.explained).length !== 1) {
      throw new Incomplete(`not exactly one ${kind} is explained`);
    }
  }
  for (const method of Object.values(bundle.methods)) {
    for (const graph of [method.graph, ...method.beside]) {
      if (!bundle.graphs[graph]) throw new Incomplete(`method ${method.name} needs the graph ${quoted(graph)}`);
    }
  }
  const scoring = bundle.single ? "single" : "forward";
  if (!bundle.graphs[scoring]) throw new Incomplete(`there is no graph ${quoted(scoring)}`);
}

/** The files of a bundle, each checked before it is used. */
export class Store {
  #bundle;
  #files;
  #single;
  #verify;
  #kept = new Map();

  constructor(bundle, files, single, verify) {
    [this.#bundle, this.#files, this.#single, this.#verify] = [bundle, files, single, verify];
  }

  /** Whether all files are there and as they were exported. */
  async checkAll() {
    const { graphs, weights } = this.#bundle;
    const wanted = Object.values(graphs).map((graph) => [graph.file, graph.sha256]);
    if (weights) wanted.push([weights.file, weights.sha256]);
    for (const [name, expected] of wanted) {
      this.#checkName(name);
      if (!(await this.#files.has(name))) throw this.#missing(name);
      if (this.#verify && expected && (await this.#files.hash(name)) !== expected) throw this.#altered(name);
    }
  }

  /** What a session of a graph is made of: bytes, or a path where the runtime opens files itself, and its weights. */
  async modelOf(graph) {
    if (this.#single) return { model: this.#single, externalData: [] };
    if (this.#files.path) return { model: this.#files.path(graph.file), externalData: [] };
    const model = await this.#bytes(graph.file, graph.sha256);
    const weights = this.#bundle.weights;
    if (!weights) return { model, externalData: [] };
    return { model, externalData: [{ path: weights.file, data: await this.#bytes(weights.file, weights.sha256) }] };
  }

  /** How errors call a file. */
  nameOf(graph) {
    return fileName(this.#files, graph.file);
  }

  #bytes(name, expected) {
    if (!this.#kept.has(name)) {
      const reading = this.#read(name, expected);
      reading.catch(() => this.#kept.delete(name));
      this.#kept.set(name, reading);
    }
    return this.#kept.get(name);
  }

  async #read(name, expected) {
    this.#checkName(name);
    const bytes = await this.#files.read(name);
    if (bytes === null) throw this.#missing(name);
    if (this.#files.lazy && this.#verify && expected && (await sha256(bytes)) !== expected) throw this.#altered(name);
    return bytes;
  }

  #checkName(name) {
    if (name.includes("/") || name.includes("\\") || name === "" || name === "..") {
      throw new BundleError(`${fileName(this.#files, DESCRIPTION)} names a file outside the bundle: ${name}`);
    }
  }

  #missing(name) {
    return new BundleError(`${fileName(this.#files, name)} is missing; export the bundle again`);
  }

  #altered(name) {
    return new BundleError(
      `${fileName(this.#files, name)} was altered after export (its SHA-256 differs); export the bundle again`,
    );
  }
}
