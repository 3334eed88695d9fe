/** Runs the engine in a thread of its own, so that the page stays alive: answers what worker_client.js asks. */

import { inflated } from "./inflate.js";

// Loaded while onnxruntime, which is much larger, is on its way too.
const loading = import("../onnxplain.js");
loading.catch(() => {});

// Which build of onnxruntime-web goes with an execution provider, and its WebAssembly, which is shipped compressed.
const BUILDS = {
  wasm: { module: "ort.wasm.bundle.min.mjs", binary: "ort-wasm-simd-threaded.wasm.gz" },
  webgpu: { module: "ort.webgpu.bundle.min.mjs", binary: "ort-wasm-simd-threaded.asyncify.wasm.gz" },
};
const MOST_THREADS = 4;
const PARTIAL_EVERY = 60;

const explainers = new Map();
const running = new Map();
const ahead = new Map();
let ort = null;
let provider = "wasm";

const ANSWERS = { start, open, predict, explain, drawOriginal, requests };

self.onmessage = async ({ data: { id, what, ...rest } }) => {
  if (what === "cancel") {
    running.get(id)?.abort();
    return;
  }
  const stop = new AbortController();
  running.set(id, stop);
  try {
    const answer = await ANSWERS[what](rest, stop.signal, (news) => self.postMessage({ id, ...news }));
    self.postMessage({ id, answer });
  } catch (error) {
    const cancelled = stop.signal.aborted;
    const { name = "Error", message = String(error) } = error ?? {};
    self.postMessage({ id, error: { name, message, cancelled } });
  } finally {
    running.delete(id);
  }
};
// Modules load while a worker is deaf: the page waits for this before it speaks.
self.postMessage({ ready: true });

/** Loads onnxruntime for a provider, and meanwhile the files that will be wanted first. */
async function start({ provider: asked, wanted }) {
  provider = asked;
  for (const address of wanted) ahead.set(address, inflated(`${address}.gz`));
  const { module, binary } = BUILDS[provider];
  const folder = new URL("../ort/", import.meta.url);
  const [loaded, bytes] = await Promise.all([import(new URL(module, folder)), inflated(new URL(binary, folder))]);
  if (!bytes) throw new Error(`${binary} is missing on this server; build the page again`);
  ort = loaded.InferenceSession ? loaded : loaded.default;
  ort.env.wasm.wasmBinary = bytes.buffer;
  // Threads share memory, which browsers allow only to pages served with the headers of cross-origin isolation.
  const cores = Math.min(MOST_THREADS, navigator.hardwareConcurrency ?? 1);
  ort.env.wasm.numThreads = self.crossOriginIsolated ? cores : 1;
  const { VERSION } = await loading;
  return { onnxplain: VERSION, onnxruntime: ort.env.versions?.common ?? "?", provider };
}

/** Opens a shipped network, whose files are compressed, or one that was handed in. */
async function open({ key, source }, signal) {
  const where = source.address ?? source.files;
  const { Explainer } = await loading;
  const options = { ort, providers: [provider], fetch: source.address && shipped, signal };
  const explainer = await Explainer.open(where, options);
  explainers.set(key, explainer);
  return { ...description(explainer.bundle), runs: explainer.methods };
}

async function shipped(address, { signal }) {
  const coming = ahead.get(address);
  ahead.delete(address);
  const bytes = await (coming ?? inflated(`${address}.gz`, signal));
  return new Response(bytes, { status: bytes ? 200 : 404 });
}

/** What the page needs to know of a bundle, without anything that a message can't carry. */
function description({ name, image, scores, steps, methods, layers, single }) {
  return JSON.parse(JSON.stringify({ name, image, scores, steps, methods, layers, single }));
}

/** The classes of a picture, best first, and the picture as the network sees it. */
async function predict({ key, picture, count }) {
  const explainer = explainers.get(key);
  const [predictions] = await explainer.predict([picture], count);
  nameClasses(explainer, predictions);
  const { data, dims: [height, width] } = explainer.prepare(picture).seen;
  return { predictions, seen: { data, width, height } };
}

/** Classes without names are numbers, which say little by themselves. */
function nameClasses({ labels }, predictions) {
  if (!labels) for (const prediction of predictions) prediction.label = `class ${prediction.label}`;
}

async function explain({ key, picture, options, count }, signal, tell) {
  const begun = performance.now();
  let told = 0;
  const explainer = explainers.get(key);
  const result = await explainer.explain([picture], {
    ...options,
    signal,
    onProgress: (share) => tell({ share }),
    onPartial: ({ attribution }) => {
      if (performance.now() - told < PARTIAL_EVERY) return;
      told = performance.now();
      tell({ partial: { data: attribution.data.slice(), dims: attribution.dims.slice() } });
    },
  });
  const seconds = (performance.now() - begun) / 1000;
  const predictions = result.predictions(0, count);
  nameClasses(explainer, predictions);
  const { attribution, method, parameters, layout, measures, steps, hasPictures } = result;
  const { targets: [target], labels: [label] } = result;
  return {
    attribution, target, method, parameters, layout, measures, steps, hasPictures, seconds, predictions,
    label: explainer.labels ? label : `class ${label}`,
    seen: result.seen(0),
  };
}

/** The overlay on a picture as it was handed in. */
async function drawOriginal({ key, picture, attribution, layout, strength }) {
  const { heatmap, overlayOriginal } = await loading;
  const { box } = explainers.get(key).prepare(picture);
  const { width, height } = picture;
  const rgb = picture.data.filter((_, place) => place % 4 !== 3);
  const heat = heatmap({ data: attribution.data, dims: attribution.dims.slice(1) }, layout);
  return { ...overlayOriginal({ data: rgb, dims: [height, width, 3] }, heat, box, { strength }), width, height };
}

/** The addresses that this thread has asked for, for tests. */
async function requests() {
  return performance.getEntriesByType("resource").map(({ name, transferSize }) => ({ name, transferSize }));
}
