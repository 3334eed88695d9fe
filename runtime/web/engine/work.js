/** What a loop works with: one checked call of explain, and the passes that its method may run. */

import { probabilitiesOf } from "./activations.js";
import { draws, takes } from "./bundle.js";
import { BundleError, ParameterError, quoted } from "./errors.js";
import { chosenFeeds, methodFeeds } from "./feeds.js";
import { imageSize } from "./images.js";
import { numbers, picked, range, rowsOf, stacked } from "./numbers.js";
import { Chunk, chunks } from "./planner.js";
import { findPlan } from "./plans.js";
import { Feed, Joined, added, besideEachOther, findFinish, runChunk } from "./summing.js";

/**
 * One call of explain: N images, T targets each, a method with all its parameters, and the passes it may run.
 *
 * `feeds` are the model's own inputs, `asked` the targets, which may be each image's top class whatever that is;
 * `answers` is what the network says of the images: computed when a loop first asks for it.
 */
export class Work {
  constructor(fields) {
    Object.assign(this, fields);
  }

  /** The same with some fields replaced. */
  with(fields) {
    return new Work({ ...this, ...fields });
  }

  /** The same call with some parameters replaced. */
  withParameters(parameters) {
    return this.with({ parameters: { ...this.parameters, ...parameters } });
  }

  /** The images as the network takes them, [N, …]. */
  get rows() {
    return this.feeds.image.values;
  }

  get count() {
    return this.rows.dims[0];
  }

  scores() {
    return this.answers.scores();
  }

  async probabilities() {
    return probabilitiesOf(await this.scores(), this.bundle);
  }

  /** What gradients are taken at, [N, …]: the images, or a value inside the network. */
  async values() {
    return this.bundle.inside ? this.answers.values() : this.rows;
  }

  /** What is explained, the classes known. */
  async chosen() {
    return this.asked.settled ? this.asked : this.asked.by(await this.scores());
  }

  /** What is explained of the images as they are: [N, T] logits or probabilities. */
  async explained() {
    return (await this.chosen()).of(await (this.explains === "probabilities" ? this.probabilities() : this.scores()));
  }

  /** Height and width of the images, [0, 0] where they are no pictures. */
  get size() {
    return imageSize(this.bundle.image.layout, this.rows);
  }

  /** The axes of a picture's map with one channel: [1, H, W] or [H, W, 1]. ParameterError without pictures. */
  get mapShape() {
    const [height, width] = this.size;
    if (!height) {
      throw new ParameterError(`${this.method.name} needs pictures; this network's input has no height and width`);
    }
    return this.bundle.image.layout === "NCHW" ? [1, height, width] : [height, width, 1];
  }

  /** The axes [N, T] of the call's maps. */
  get leading() {
    return [this.count, this.asked.count];
  }

  /** The step table of the method's plan. */
  steps() {
    return findPlan(this.method.plan).rule(this.parameters, ...this.size);
  }

  /** Moves the progress on by a number of images, or a part of one. */
  advance(images) {
    this.progress.add(images);
  }

  /** The same work for the images from `first` up to `past`, which mustn't depend on the others. */
  part(first, past) {
    const numbersOf = range(past - first).map((place) => first + place);
    return this.with({
      feeds: mapped(this.feeds, (feed) => feed.changed((values) => rowsOf(values, first, past))),
      asked: this.asked.at(numbersOf),
      answers: this.answers.of(first, past),
      names: this.names.slice(first, past),
      offset: this.offset + first,
      parameters: mapped(this.parameters, (value, name) => this.#cut(value, name, first, past)),
    });
  }

  /** An array given for each of the images, for some of them; baselines of the images' rank, as such. */
  #cut(value, name, first, past) {
    if (!value?.dims) return value;
    const { dims } = value;
    const perImage = dims.length > 0 && dims[0] === this.count && this.count > 1;
    if (this.method.parameters[name]?.kind !== "image") {
      // segments: [H, W] is for all, masks have an axis more
      return perImage && dims.length - Number(Boolean(value.masks)) === 3 ? rowsOf(value, first, past) : value;
    }
    const rank = this.bundle.value.shape.length;
    if (dims.length < rank) return value;
    if (perImage) return rowsOf(value, first, past);
    // Several for all: named so, or as many as there are images in the part would be taken for one for each.
    return dims.length === rank && dims[0] > 1 ? numbers(value.data, [1, ...dims]) : value;
  }

  /**
   * The maps [N, T, …] that the finish rule makes of the sums over the plan's steps. `feeds` take the place of what the
   * parameters would give, by role; an array whose first axis is N is cut to a run's images. `share` of the whole work
   * is what the progress moves on by.
   */
  async sum({ steps, graph, finish, share = 1, feeds = {} } = {}) {
    const rule = findFinish(finish ?? this.method.finish);
    const maps = new Joined(this.count, Float32Array);
    const finished = ([total, norm]) => rule(total, norm);
    for await (const { images, parts } of this.#groups(["total", "norm"], {
      steps,
      graph,
      share,
      feeds,
      shown: finished,
    })) {
      maps.put(images, finished(parts));
    }
    return maps.values;
  }

  /** The sums over steps of a graph's outputs, each [N, …] in float64; `shown` makes a map of those so far. */
  async sums(outputs, { steps, graph, share = 1, feeds = {}, shown = ([total]) => total } = {}) {
    const found = outputs.map(() => new Joined(this.count, Float64Array));
    for await (const { images, parts } of this.#groups(outputs, { steps, graph, share, feeds, shown })) {
      found.forEach((kept, output) => kept.put(images, parts[output]));
    }
    return found.map((kept) => kept.values);
  }

  /** The sums over steps of a graph's outputs, for the images of some runs at a time. */
  async *#groups(outputs, { steps, graph, share, feeds, shown }) {
    const prepared = await this.#prepared(graph, steps, feeds);
    const learns = this.#learnsFrom(prepared.graph);
    const scores = new Joined(this.count, Float32Array);
    const wanted = learns ? [...outputs, "scores"] : outputs;
    const length = prepared.table.dims[0];
    let sums = [];
    for (const chunk of this.#chunks(prepared.graph, length)) {
      const parts = await this.#run(prepared.graph, wanted, prepared.feeds, chunk);
      sums = chunk.first ? parts : added(sums, parts);
      this.effort.rows += chunk.rows;
      this.advance((share * chunk.rows) / length);
      this.partial.show(this, chunk.images, () => shown(sums.slice(0, outputs.length), chunk.images));
      if (!chunk.last) continue;
      if (learns) scores.put(chunk.images, sums.at(-1));
      yield { images: chunk.images, parts: sums.slice(0, outputs.length) };
    }
    if (learns) this.answers.tell(scores.values);
  }

  /** A graph's outputs for all images and steps: [N, …], or [N, K, …] of a graph that takes steps. */
  async collect(outputs, { steps, graph, share = 1, feeds = {} } = {}) {
    const prepared = await this.#prepared(graph, steps, feeds);
    const learns = this.#learnsFrom(prepared.graph);
    const wanted = learns ? [...outputs, "scores"] : outputs;
    const found = wanted.map(() => new Joined(this.count));
    const length = prepared.table.dims[0];
    let group = [];
    for (const chunk of this.#chunks(prepared.graph, length)) {
      const parts = await this.#run(prepared.graph, wanted, prepared.feeds, chunk, besideEachOther);
      if (chunk.first) group = parts.map((part) => [part]);
      else parts.forEach((part, output) => group[output].push(part));
      if (chunk.last) found.forEach((kept, output) => kept.put(chunk.images, joinedSteps(group[output])));
      this.effort.rows += chunk.rows;
      this.advance((share * chunk.rows) / length);
    }
    if (learns) this.answers.tell(found.pop().values);
    return found.map((kept) => kept.values);
  }

  /** Whether a run of the graph is to tell the scores, and to find the top classes, as nobody knows them yet. */
  #learnsFrom(graph) {
    return graph.tellsScores && !this.answers.known;
  }

  /** The gradients [M, T, …] of what is explained of the images of these numbers, at any rows [M, …]. */
  async gradientsAt(rows, images) {
    if (this.bundle.inside) {
      throw new ParameterError(
        `${this.method.name} takes gradients at pictures of its own, but this bundle takes them at ` +
          `${quoted(this.bundle.inside.name)} inside the network; use integrated_gradients`,
      );
    }
    const graph = this.graphOf("gradient");
    const feeds = await this.#feedsAt(rows, images);
    const parts = [];
    for (const chunk of this.#chunks(graph, 1, rows.dims[0])) {
      const [total, norm] = await this.#run(graph, ["total", "norm"], feeds, chunk);
      parts.push(findFinish("mean")(total, norm));
      this.effort.rows += chunk.rows;
    }
    return stacked(parts);
  }

  /** The network's scores [M, …] at rows [M, …], what else it takes being that of the images of these numbers. */
  async scoresAt(rows, images) {
    const graph = this.bundle.graphs.forward;
    const feeds = await this.#feedsAt(rows, images);
    const parts = [];
    for (const chunk of this.#chunks(graph, 1, rows.dims[0])) {
      parts.push((await this.#run(graph, ["scores"], feeds, chunk))[0]);
    }
    this.effort.rows += rows.dims[0];
    return stacked(parts);
  }

  /** What is explained of the images of these numbers, at any rows: [M, T] logits or probabilities. */
  async explainedAt(rows, images) {
    return this.explainedOf(await this.scoresAt(rows, images), images);
  }

  /** What is explained of scores [M, …] that belong to the images of these numbers: [M, T]. */
  async explainedOf(scores, images) {
    const ofRows = this.explains === "probabilities" ? probabilitiesOf(scores, this.bundle) : scores;
    return (await this.chosen()).at(images).of(ofRows);
  }

  /** Runs what lies behind a layer on other features [M, …] of the images of these numbers: scores [M, …]. */
  async scoresBehind(name, features, images) {
    const graph = this.bundle.graphs[name];
    const own = mapped(this.feeds, (feed) => feed.changed((values) => picked(values, images)));
    const feeds = { ...own, layer: new Feed(features, { perImage: true }) };
    const whole = new Chunk([0, features.dims[0]], [0, 1], true, true);
    const [scores] = await this.#run(graph, ["scores"], feeds, whole);
    return scores;
  }

  /** The graph, its steps, and all that it is fed. */
  async #prepared(name, steps, given) {
    const graph = this.graphOf(name ?? this.method.graph);
    const plan = findPlan(this.method.plan);
    const table = steps ?? this.steps();
    if (!steps && String(plan.columns) !== String(graph.columns ?? [])) {
      throw new BundleError(
        `${graph.file} takes steps of ${graph.columns}, but the plan rule ${quoted(this.method.plan)} makes ` +
          `${plan.columns}`,
      );
    }
    const feeds = { ...this.feeds, ...chosenFeeds(this.#learnsFrom(graph) ? this.asked : await this.chosen()) };
    const values = () => this.values();
    Object.assign(feeds, await methodFeeds(graph, this.parameters, table, values, this.rows, this.bundle));
    if (takes(graph, "reference")) feeds.reference = new Feed(await this.explained(), { perImage: true });
    feeds.activated = new Feed(numbers(Float32Array.of(this.explains === "probabilities" ? 1 : 0), [1]));
    for (const [role, array] of Object.entries(given)) {
      feeds[role] = new Feed(array, { perImage: array.dims.length > 0 && array.dims[0] === this.count });
    }
    return { graph, table, feeds };
  }

  /** The graph, or its variant in which several targets share a forward pass. */
  graphOf(name) {
    const shared = this.asked.count > 1 ? this.bundle.graphs[`${name}.targets`] : undefined;
    return shared ?? this.bundle.graphs[name];
  }

  /** The model's inputs and targets for rows of one's own, those of the images of these numbers. */
  async #feedsAt(rows, images) {
    const feeds = { ...this.feeds, ...chosenFeeds(await this.chosen()) };
    const known = mapped(feeds, (feed) => feed.changed((values) => picked(values, images)));
    return { ...known, image: new Feed(rows, { perImage: true }) };
  }

  #chunks(graph, steps, images = this.count) {
    return chunks(images, steps, this.rowsPerRun(graph, this.asked.count), { shared: draws(graph) });
  }

  async #run(graph, outputs, feeds, chunk, join) {
    await this.pause();
    return runChunk(this.sessions, graph, outputs, feeds, chunk, join);
  }
}

function joinedSteps(parts) {
  const [first] = parts;
  if (parts.length === 1 || first.dims.length === 1) return first;
  if (first.dims[0] !== 1) return parts.reduce((before, after) => besideEachOther([before], [after])[0]);
  const joined = stacked(parts.map(({ data, dims }) => numbers(data, dims.slice(1))));
  return numbers(joined.data, [1, ...joined.dims]);
}

function mapped(table, change) {
  return Object.fromEntries(Object.entries(table).map(([name, value]) => [name, change(value, name)]));
}
