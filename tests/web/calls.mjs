/**
 * Answers calls of the JavaScript engine for the Python tests: node calls.mjs JOB.json
 *
 * The job is {packages, runtime: "node" | "wasm" | null, bundle, out, calls: [{what, …}]}. Arrays are named in it as
 * {file, dims, dtype}, raw numbers. What comes back, out/answers.json, has a list with {value}, in which arrays are
 * written likewise, or {error: {name, message}} for each call.
 */

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import * as onnxplain from "../../runtime/web/onnxplain.js";
import { pointsOf } from "../../runtime/web/engine/integration.js";
import { metadataOf } from "../../runtime/web/engine/model_file.js";
import { chunks } from "../../runtime/web/engine/planner.js";
import { findPlan } from "../../runtime/web/engine/plans.js";
import { uniform } from "../../runtime/web/engine/random.js";
import { interpolationMatrix, resize } from "../../runtime/web/engine/resize.js";
import { sha256, sha256Plain } from "../../runtime/web/engine/sha256.js";
import { findSolver } from "../../runtime/web/engine/solvers.js";
import { processors } from "../../runtime/web/engine/system.js";
import { fromHalf, toHalf } from "../../runtime/web/engine/half.js";

const TYPES = {
  float32: Float32Array,
  float64: Float64Array,
  uint8: Uint8Array,
  int64: BigInt64Array,
  int32: Int32Array,
  uint16: Uint16Array,
};
const NAMES = new Map(Object.entries(TYPES).map(([name, type]) => [type, name]));
NAMES.set(Uint8ClampedArray, "uint8");

const job = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const require = createRequire(path.join(job.packages, "package.json"));

function runtime() {
  if (job.runtime === null) return null;
  const ort = require(job.runtime === "wasm" ? "onnxruntime-web" : "onnxruntime-node");
  if (job.runtime === "wasm") ort.env.wasm.numThreads = job.threads ?? 1;
  ort.env.logLevel = "error";
  return ort;
}

const ort = runtime();
let explainer = null;

async function opened() {
  explainer ??= await onnxplain.Explainer.open(job.bundle, { ort, ...job.open });
  return explainer;
}

function read(value) {
  if (Array.isArray(value)) return value.map(read);
  if (value === null || typeof value !== "object") return value;
  if (typeof value.file === "string" && value.dtype) {
    const bytes = fs.readFileSync(value.file);
    const data = new TYPES[value.dtype](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
    const { file, ...rest } = value;
    return { ...rest, data };
  }
  return Object.fromEntries(Object.entries(value).map(([name, entry]) => [name, read(entry)]));
}

let written = 0;

function write(value) {
  if (Array.isArray(value)) return value.map(write);
  if (ArrayBuffer.isView(value)) return write({ data: value, dims: [value.length] });
  if (value === null || typeof value !== "object") return value;
  if (ArrayBuffer.isView(value.data)) {
    const file = path.join(job.out, `${written++}.raw`);
    fs.writeFileSync(file, Buffer.from(value.data.buffer, value.data.byteOffset, value.data.byteLength));
    const dims = value.dims ?? [value.height, value.width, value.channels];
    return { file, dims, dtype: NAMES.get(value.data.constructor) };
  }
  return Object.fromEntries(Object.entries(value).map(([name, entry]) => [name, write(entry)]));
}

/** A source as it is, or files in memory. */
function sourceOf(source) {
  if (!source?.files) return source;
  const files = source.files.map(({ name, bytes }) => ({ name, bytes: bytes.data }));
  return source.map ? new Map(files.map(({ name, bytes }) => [name, bytes])) : files;
}

async function explained({ images, options = {}, drawn, news }) {
  const counts = { progress: [], partial: 0 };
  let last = null;
  const listeners = news && {
    onProgress: (share) => counts.progress.push(share),
    onPartial: (partial) => {
      counts.partial += 1;
      last = Float32Array.from(partial.attribution.data);
    },
  };
  const started = performance.now();
  const result = await (await opened()).explain(images, { ...options, ...listeners });
  const seconds = (performance.now() - started) / 1000;
  const { attribution, scores, probabilities, targets, labels, parameters, steps, layout } = result;
  const answer = { attribution, scores, probabilities, targets, labels, parameters, steps, layout, seconds };
  if (news) Object.assign(answer, { ...counts, last });
  if (drawn) Object.assign(answer, drawings(result));
  return answer;
}

function drawings(result) {
  return {
    heatmap: result.heatmap(),
    signed: result.signed(),
    overlay: result.overlay(),
    original: result.overlayOriginal(0),
    seen: result.seen(0),
    best: result.predictions(0, 3),
  };
}

const ANSWERS = {
  explain: explained,
  open: async ({ source, options, images, explain }) => {
    const found = await onnxplain.Explainer.open(sourceOf(source ?? job.bundle), { ort, ...options });
    const result = images && (await found.explain(images, explain));
    await found.release();
    return { methods: found.methods, name: found.bundle.name, attribution: result?.attribution };
  },
  aborted: async ({ images, options }) => {
    const controller = new AbortController();
    const onProgress = () => controller.abort();
    return (await opened()).explain(images, { ...options, signal: controller.signal, onProgress });
  },
  at_once: async ({ images, methods }) => {
    const found = await opened();
    const results = await Promise.all(methods.map((method) => found.explain(images, { method })));
    return results.map(({ attribution }) => attribution);
  },
  settings: async ({ images }) => {
    const { create } = ort.InferenceSession;
    const seen = [];
    ort.InferenceSession.create = (model, options) => {
      seen.push({ threads: options.intraOpNumThreads ?? 0, entries: options.extra });
      return create.call(ort.InferenceSession, model, options);
    };
    await (await opened()).scores(images);
    return seen;
  },
  processors: async ({ root }) => processors(root),
  version: async () => onnxplain.VERSION,
  scores: async ({ images }) => (await opened()).scores(images),
  prepare: async ({ picture, steps }) => onnxplain.prepare(picture, steps),
  heatmap: async ({ attribution, layout, options }) => onnxplain.heatmap(attribution, layout, options),
  signed: async ({ attribution, layout }) => onnxplain.signedMap(attribution, layout),
  overlay: async ({ seen, heat, options }) => onnxplain.overlay(seen, heat, options),
  signed_overlay: async ({ seen, share }) => onnxplain.signedOverlay(seen, share),
  original: async ({ original, heat, box }) => onnxplain.overlayOriginal(original, heat, box),
  colours: async ({ heat, map }) => onnxplain.colours(heat, map),
  diverging: async ({ share }) => onnxplain.diverging(share),
  plan: async ({ name, parameters, height, width }) => findPlan(name).rule(parameters, height, width),
  points: async ({ rule, count }) => Float64Array.from(pointsOf(rule, count).flat()),
  uniform: async ({ seed, draws, shape }) => uniform(seed, draws, shape),
  chunks: async ({ images, steps, rows }) => chunks(images, steps, rows),
  design: async ({ name, parameters, segments }) => findSolver(name).design(parameters, segments),
  matrix: async ({ source, target, kernel, antialias, box }) =>
    interpolationMatrix(source, target, kernel, antialias, box),
  resize: async ({ picture, height, width, options }) => {
    const { data, ...rest } = picture;
    const [h, w, channels] = rest.dims;
    return resize({ data, height: h, width: w, channels }, height, width, options);
  },
  sha256: async ({ bytes }) => [await sha256(bytes.data), sha256Plain(bytes.data)],
  half: async ({ values }) => ({ bits: toHalf(values.data), back: fromHalf(toHalf(values.data)) }),
  metadata: async ({ bytes }) => metadataOf(bytes.data),
};

const answers = [];
for (const call of job.calls) {
  try {
    answers.push({ value: write(await ANSWERS[call.what](read(call))) });
  } catch (error) {
    answers.push({ error: { name: error.name, message: error.message, stack: error.stack } });
  }
}
fs.writeFileSync(path.join(job.out, "answers.json"), JSON.stringify(answers));
await explainer?.release();
