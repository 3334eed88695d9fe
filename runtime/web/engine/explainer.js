/** The engine's front door: an Explainer opens a bundle and explains images with the methods in it. */

import { probabilitiesOf } from "./activations.js";
import { Answers, checkFinite } from "./answers.js";
import { EXPLAINS, readBundle, takes } from "./bundle.js";
import { classCotangents, givenCotangents } from "./cotangents.js";
import { ParameterError, quoted, unknown } from "./errors.js";
import { chosenFeeds, methodFeeds } from "./feeds.js";
import { readImages, stack, stackOthers, stackPictures } from "./images.js";
import { inGroups } from "./in_groups.js";
import { PartialMaps, Progress, pauseFor, withoutTargets } from "./news.js";
import { numbers, sameDims, stacked } from "./numbers.js";
import { checkParameters } from "./parameters.js";
import { RunSizes, chunks } from "./planner.js";
import { tableOf } from "./plans.js";
import { prepare } from "./preprocessing.js";
import { Result, predictionsOf } from "./result.js";
import { Sessions } from "./sessions.js";
import { Feed, runChunk } from "./summing.js";
import { IS_NODE, processors } from "./system.js";
import { asked, bestOf } from "./targets.js";
import { VERSION } from "./version.js";
import { Work } from "./work.js";

// Loops that explain scores without a graph that takes `activated`: probability or logit is the engine's own choice.
const SCORING = ["scorecam", "ablation_cam", "recipro_cam"];
const OPTIONS = [
  ...["method", "targets", "top", "parameters", "score", "cotangent", "memory"],
  ...["tolerance", "onProgress", "onPartial", "signal"],
];
const PRESETS = ["captum", "fastestimator", "mindspore", "pair"];

/** Explains images with the methods of one bundle; see onnxplain.d.ts. */
export class Explainer {
  #ort;
  #sessions;
  #sizes;
  #providers;

  /** Opens a bundle or a single file. */
  static async open(source, options) {
    // A CommonJS module that is imported whole may have all of it in its default export.
    const ort = options?.ort?.InferenceSession ? options.ort : options?.ort?.default;
    if (!ort?.InferenceSession || !ort.Tensor) {
      throw new ParameterError("ort= takes the module onnxruntime-web or onnxruntime-node: import * as ort from it");
    }
    for (const name of ["threads", "rows"]) {
      const value = options[name];
      if (value !== undefined && (!Number.isInteger(value) || value < 1)) {
        throw new ParameterError(`${name}=${quoted(value)} must be a whole number of at least 1`);
      }
    }
    // onnxruntime-node names its backends, and has no "wasm".
    const native = Boolean(ort.listSupportedBackends);
    const opened = { ...options, ort, native, cores: native && IS_NODE ? await processors() : null };
    const { bundle, store } = await readBundle(source, opened);
    return new Explainer(bundle, store, opened);
  }

  constructor(bundle, store, options) {
    const { ort, native, cores, rows } = options;
    this.bundle = bundle;
    this.#ort = ort;
    this.#providers = options.providers ?? [native ? "cpu" : "wasm"];
    // Beyond the processors that it may use, a process's threads would only wait for one another.
    const threads = options.threads ?? (cores && cores.allowed < cores.machine ? cores.allowed : undefined);
    this.#sessions = new Sessions(ort, store, { providers: this.#providers, threads });
    const first = this.#providers[0]?.name ?? this.#providers[0];
    const accelerated = !["cpu", "wasm"].includes(first);
    const usual = native ? (cores?.allowed ?? 2) : ort.env?.wasm?.numThreads || 1;
    this.#sizes = new RunSizes({ accelerated, rows, threads: threads ?? usual });
  }

  /** The names of the methods that run as they are, with no more than an image. */
  get methods() {
    const alone = ({ loop, parameters }) => loop !== "xrai" || parameters.segments?.default !== null;
    return Object.values(this.bundle.methods)
      .filter(alone)
      .map(({ name }) => name);
  }

  get labels() {
    return this.bundle.scores.labels;
  }

  async explain(images, options = {}) {
    const request = this.#request(options);
    const batch = readImages(images, this.bundle);
    const work = await this.#work(batch, request, options);
    const maps = await this.#maps(work, request, options);
    return this.#result(batch, work, maps, request);
  }

  async scores(images) {
    const batch = readImages(images, this.bundle);
    const names = batch.map(({ name }) => name);
    const [scores] = await this.#forward(modelFeeds(batch, this.bundle), batch.length, null);
    checkFinite(scores, names, "scores");
    return scores;
  }

  async predict(images, count = 5) {
    const scores = await this.scores(images);
    const { labels, classAxis } = this.bundle.scores;
    const probabilities = probabilitiesOf(scores, this.bundle);
    return Array.from({ length: scores.dims[0] }, (_, index) =>
      predictionsOf(scores, probabilities, labels, classAxis, index, count),
    );
  }

  prepare(picture) {
    return prepare(picture, this.bundle.steps, picture.name ?? "a picture");
  }

  async warm(method) {
    const entry = this.#method(method);
    await this.#sessions.open(this.bundle.graphs[entry.graph]);
  }

  async release() {
    await this.#sessions.release();
  }

  #method(name) {
    const { methods, leftOut, path } = this.bundle;
    if (typeof name === "string" && name in methods) return methods[name];
    const text = String(name);
    const preset = PRESETS.find((system) => text.endsWith(`.${system}`));
    if (preset) {
      throw new ParameterError(
        `the preset ${quoted(preset)} is not supported by this engine; set the method's parameters, or use Python`,
      );
    }
    if (text in leftOut) throw new ParameterError(`the bundle has no ${text}: ${leftOut[text]}`);
    if (text === "rise_plus") {
      throw new ParameterError(`rise_plus needs a detector; train one: onnxplain detector ${path} --data PICTURES`);
    }
    const sentence = unknown("method", text, Object.keys(methods));
    const dot = sentence.endsWith("?") ? "" : ".";
    throw new ParameterError(`${sentence}${dot} Which methods a bundle has is chosen at export (--methods)`);
  }

  /** Everything about a call that can be checked before a picture is read. */
  #request(options) {
    for (const name of Object.keys(options)) {
      if (!OPTIONS.includes(name)) {
        const hint = `a method's parameters go into parameters: { ${name}: … }`;
        throw new ParameterError(`unknown option ${quoted(name)}; known: ${OPTIONS.join(", ")}; ${hint}`);
      }
    }
    const first = this.bundle.single?.method ?? "gradient";
    const { method: name = first, score = null, memory = null, top = null, cotangent = null } = options;
    const method = this.#method(name);
    if (score !== null && !EXPLAINS.includes(score))
      throw new ParameterError(unknown("score", String(score), EXPLAINS));
    const graph = this.bundle.graphs[method.graph];
    if (score !== null && !takes(graph, "activated") && !SCORING.includes(method.loop)) {
      throw new ParameterError(`score= is for perturbation methods; ${name} explains the ${method.explains}`);
    }
    if (memory !== null) this.#sizes.rows(graph, memory);
    if (options.tolerance !== undefined) {
      throw new ParameterError("tolerance= is not supported by this engine; give the number of steps or samples");
    }
    const parameters = checkParameters(method, options.parameters ?? {});
    if (parameters.layer === "") parameters.layer = this.bundle.layers.find((layer) => layer.default)?.name ?? "";
    return { method, parameters, explains: score ?? method.explains, memory, top, cotangent };
  }

  /** What a loop works with; nothing has run yet, unless the targets can't be known before. */
  async #work(batch, request, options) {
    const feeds = modelFeeds(batch, this.bundle);
    const names = batch.map(({ name }) => name);
    const answers = new Answers(() => this.#forward(feeds, batch.length, request.memory, options.signal), names);
    const what = await this.#asked(options.targets ?? null, request, answers, batch.length);
    const layout = this.bundle.value.layout ?? this.bundle.image.layout;
    return new Work({
      bundle: this.bundle,
      method: request.method,
      parameters: request.parameters,
      explains: request.explains,
      asked: what,
      feeds,
      answers,
      names,
      sessions: this.#sessions,
      rowsPerRun: (graph, targets) => this.#sizes.rows(graph, request.memory, targets),
      progress: new Progress(batch.length, options.onProgress),
      partial: new PartialMaps(options.onPartial, layout, what),
      pause: () => pauseFor(options.signal),
      effort: { rows: 0 },
      offset: 0,
    });
  }

  /** The maps [N, T, …] of the method's loop; ModelError unless they are finite. */
  async #maps(work, request, options) {
    options.signal?.throwIfAborted();
    if (!work.count) return numbers(new Float32Array(0), [0, work.asked.count, ...sizesOf(this.bundle.value.shape)]);
    const maps = await inGroups(work, request.memory, this.#sizes);
    await work.scores(); // where they overflow, it is them that an error should name
    checkFinite(maps, work.names, "map");
    return maps;
  }

  async #result(batch, work, maps, request) {
    const chosen = await work.chosen();
    const { inside, image, scores: output } = this.bundle;
    const ofValue = sameDims(maps.dims.slice(2), inside ? sizesOf(inside.shape) : work.rows.dims.slice(1));
    const steps = Math.round(work.effort.rows / Math.max(1, batch.length));
    const fields = {
      attribution: chosen.several ? maps : withoutTargets(maps),
      scores: await work.scores(),
      probabilities: await work.probabilities(),
      targets: chosen.several ? chosen.table : chosen.table.map(([target]) => target),
      labels: chosen.names(output.labels),
      method: request.method.name,
      parameters: { ...request.parameters },
      layout: ofValue ? this.bundle.value.layout : image.layout,
      measures: request.method.measures,
      steps,
      provenance: this.#provenance(batch, request, steps),
    };
    const hidden = { images: batch, several: chosen.several, classNames: output.labels, classAxis: output.classAxis };
    return new Result(fields, hidden);
  }

  #provenance(batch, { method, parameters, explains }, steps) {
    const { name, sha256, source } = this.bundle;
    const plain = (value) => (value?.dims ? { shape: value.dims } : value);
    return {
      bundle: { name, sha256, model_sha256: source.sha256 ?? null },
      pictures: batch.map((image) => ({ name: image.name, steps })),
      method: method.name,
      parameters: Object.fromEntries(Object.entries(parameters).map(([key, value]) => [key, plain(value)])),
      explains,
      seed: parameters.seed ?? null,
      provider: this.#providers[0]?.name ?? this.#providers[0],
      versions: { onnxplain: VERSION, onnxruntime: this.#ort.env?.versions?.common ?? null },
    };
  }

  /** What is explained. The scores are asked for only where that can't be left to the method's graph. */
  async #asked(targets, { top, cotangent }, answers, count) {
    const output = this.bundle.scores;
    if (cotangent === null) {
      if (this.bundle.free) return classCotangents(targets, await answers.scores(), output, top);
      if (top === null) return asked(targets, count, output.classes ?? output.shape[1], output.labels);
      return bestOf(top, targets, await answers.scores());
    }
    if (targets !== null || top !== null) {
      throw new ParameterError("cotangent= and targets= (or top=) both say what is explained; give one of them");
    }
    if (!this.bundle.free) {
      throw new ParameterError("this bundle explains classes; one that takes a cotangent is exported with --cotangent");
    }
    return givenCotangents(cotangent, (await answers.scores()).dims, output);
  }

  /** The scores [N, …] and the explained values [N, …] of `count` images. */
  async #forward(feeds, count, memory, signal) {
    // A single file has no graph for the scores alone: they come with a map.
    const graph = this.bundle.graphs.forward ?? this.bundle.graphs.single;
    const inside = this.bundle.inside && !this.bundle.single;
    if (!count) {
      const empty = (shape) => numbers(new Float32Array(0), [0, ...sizesOf(shape)]);
      return [empty(this.bundle.scores.shape), empty(this.bundle.value.shape)];
    }
    const every = this.bundle.single ? { ...feeds, ...(await this.#otherFeeds(graph, feeds, count)) } : feeds;
    const parts = [];
    for (const chunk of chunks(count, 1, this.#sizes.rows(graph, memory))) {
      await pauseFor(signal);
      parts.push(await runChunk(this.#sessions, graph, inside ? ["scores", "explained"] : ["scores"], every, chunk));
    }
    const scores = stacked(parts.map(([part]) => part));
    return [scores, inside ? stacked(parts.map(([, part]) => part)) : feeds.image.values];
  }

  /** What else a single file takes: the top class as the target, and its free parameters at their defaults. */
  async #otherFeeds(graph, feeds, count) {
    const top = asked(null, count, 1, null);
    const method = this.bundle.methods[this.bundle.single.method];
    const rows = feeds.image.values;
    const own = await methodFeeds(
      graph,
      checkParameters(method, {}),
      tableOf([[]], 0),
      async () => rows,
      rows,
      this.bundle,
    );
    return { ...chosenFeeds(top), ...own };
  }
}

/** The images and what comes with them, for the inputs of the model itself. */
function modelFeeds(batch, bundle) {
  const feeds = { image: new Feed(stack(batch, bundle.image), { perImage: true }) };
  if (bundle.single?.pictureInput) feeds.picture = new Feed(stackPictures(batch), { perImage: true });
  for (const { entry, values } of stackOthers(batch, bundle)) {
    feeds[`input ${entry.name}`] = new Feed(values, { perImage: entry.batched });
  }
  return feeds;
}

/** The axes behind the batch, 1 where one is free. */
function sizesOf(shape) {
  return shape.slice(1).map((size) => (typeof size === "number" ? size : 1));
}
