/** What the network says of a call's images as they are: a by-product of some runs, a run of its own for the others. */

import { ModelError } from "./errors.js";
import { allFinite, product, rowsOf } from "./numbers.js";

/**
 * The scores [N, …] and the explained values [N, …] of N images, each found when somebody first asks. A run that
 * computes the scores anyway tells them, and the `forward` graph, which gives both, isn't run for them.
 */
export class Answers {
  #forward;
  #names;
  #scores = null;
  #values = null;

  constructor(forward, names) {
    [this.#forward, this.#names] = [forward, names];
  }

  /** Whether the scores are there. */
  get known() {
    return this.#scores !== null;
  }

  /** The network's scores [N, …]. */
  async scores() {
    if (this.#scores === null) await this.#ask();
    return this.#scores;
  }

  /** What gradients are taken at, [N, …]. */
  async values() {
    if (this.#values === null) await this.#ask();
    return this.#values;
  }

  /** Takes the scores that a run gave; ModelError where they aren't finite. */
  tell(scores) {
    checkFinite(scores, this.#names, "scores");
    this.#scores = scores;
  }

  /** The answers for the images from `first` up to `past`. */
  of(first, past) {
    const forward = async () => {
      const found = [await this.scores(), await this.values()];
      return found.map((array) => rowsOf(array, first, past));
    };
    return new Answers(forward, this.#names.slice(first, past));
  }

  async #ask() {
    const [scores, values] = await this.#forward();
    this.#values = values;
    if (this.#scores === null) this.tell(scores); // else those of the run that made the maps stay
  }
}

/** ModelError unless the values [N, …] of every image are finite. */
export function checkFinite(values, names, what) {
  const size = product(values.dims.slice(1));
  names.forEach((name, image) => {
    if (!allFinite(values.data.subarray(image * size, (image + 1) * size))) {
      throw new ModelError(`the network's ${what} for ${name} contains NaN or infinity: its numbers overflow there`);
    }
  });
}
