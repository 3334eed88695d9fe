/** What the page works with: networks, pictures, and the maps that were made of them. */

import { Cancelled, EngineThread } from "./engine_thread.js";
import { pixelsOf } from "./pictures.js";

const MOST_KEPT = 200;
const ALL_CLASSES = 1e9;

/** The engine's thread, the networks that it has open, and what it has answered. */
export class Studio {
  #thread = null;
  #started = null;
  #provider = "wasm";
  #open = new Map();
  #maps = new Map();
  #answers = new Map();
  versions = null;

  /** `wanted` are addresses of files that will be asked for first. */
  constructor(wanted) {
    this.#begin(wanted);
  }

  /** Uses another execution provider from now on; what was made is made anew. */
  use(provider) {
    this.#thread.end();
    this.#provider = provider;
    this.#open.clear();
    this.#maps.clear();
    this.#answers.clear();
    this.#begin();
  }

  #begin(wanted = []) {
    this.#thread = new EngineThread();
    this.#started = this.#thread.ask("start", { provider: this.#provider, wanted });
    this.#started.then((versions) => (this.versions = versions), () => {});
  }

  /** A network's description; its files are read now unless they were. */
  opened(network) {
    if (!this.#open.has(network.key)) {
      const thread = this.#thread;
      const opening = this.#started.then(() => thread.ask("open", { key: network.key, source: network.source }));
      opening.catch(() => this.#open.get(network.key) === opening && this.#open.delete(network.key));
      this.#open.set(network.key, opening);
    }
    return this.#open.get(network.key);
  }

  /** What a network says to a picture, {predictions, seen}; null of one that has no graph for it. */
  async answer(network, picture) {
    const key = `${network.key} ${picture.key}`;
    if (!this.#answers.has(key)) {
      const { single } = await this.opened(network);
      if (single) return null;
      const question = { key: network.key, picture: await pixelsOf(picture), count: ALL_CLASSES };
      this.#answers.set(key, await this.#thread.ask("predict", question));
    }
    return this.#answers.get(key);
  }

  /** A map; one that was made before is given again. `news` hears of its growth. */
  async map({ network, picture, method, target, parameters }, { signal, news } = {}) {
    const key = JSON.stringify([network.key, picture.key, method, target, Object.entries(parameters).sort()]);
    const known = this.#maps.get(key);
    if (known) return known;
    const thread = this.#thread;
    await this.opened(network);
    const pixels = await pixelsOf(picture);
    if (signal?.aborted) throw new Cancelled("cancelled");
    const options = { method, targets: target, parameters };
    const question = { key: network.key, picture: pixels, options, count: ALL_CLASSES };
    const result = { ...(await thread.ask("explain", question, { signal, news })), network, picture };
    this.#answers.set(`${network.key} ${picture.key}`, result);
    if (this.#maps.size >= MOST_KEPT) this.#maps.delete(this.#maps.keys().next().value);
    this.#maps.set(key, result);
    return result;
  }

  /** The overlay of a map on its picture as it was handed in. */
  async onOriginal({ network, picture, attribution, layout }, strength) {
    const pixels = await pixelsOf(picture);
    return this.#thread.ask("drawOriginal", { key: network.key, picture: pixels, attribution, layout, strength });
  }

  /** The addresses that the engine's thread has asked for. */
  requests() {
    return this.#thread.ask("requests");
  }
}
