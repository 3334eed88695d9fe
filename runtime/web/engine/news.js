/** What a call tells its caller while it runs: how far it is, and the map so far. */

import { heatmap } from "./heatmap.js";
import { SPATIAL } from "./images.js";
import { broadcast, numbers, product } from "./numbers.js";

/** The share of a call's work that is done. */
export class Progress {
  constructor(count, listener) {
    Object.assign(this, { count: Math.max(1, count), listener, done: 0 });
  }

  /** Moves on by a number of images, or a part of one. */
  add(images) {
    this.done += images;
    this.listener?.(Math.min(1, this.done / this.count));
  }
}

/** The maps so far of all images of a call, for a listener. */
export class PartialMaps {
  #maps = null;

  constructor(listener, layout, asked) {
    Object.assign(this, { listener, layout, asked });
  }

  /** Tells of the images from `first` up to `past` of a (part of a) call what `make` makes of the sums so far. */
  show(work, [first, past], make) {
    if (!this.listener || work.asked.count !== this.asked.count) return;
    const map = make();
    const rest = map.dims.slice(1);
    const size = product(rest);
    const whole = [this.asked.table.length, ...rest];
    if (this.#maps?.data.length !== product(whole)) this.#maps = numbers(new Float32Array(product(whole)), whole);
    const start = work.offset + first;
    this.#maps.data.set(broadcast(map, [past - first, ...rest]).data, start * size);
    const attribution = this.asked.several ? this.#maps : withoutTargets(this.#maps);
    const drawn = this.layout in SPATIAL && attribution.dims.length - (this.asked.several ? 2 : 1) === 3;
    this.listener({
      attribution,
      first: start,
      past: work.offset + past,
      heatmap: (options) => (drawn ? heatmap(attribution, this.layout, options) : null),
    });
  }
}

/** Maps [N, 1, …] as [N, …]. */
export function withoutTargets({ data, dims }) {
  return numbers(data, [dims[0], ...dims.slice(2)]);
}

/** Lets the page draw and handle events; rejects with the signal's reason once that is aborted. */
export async function pauseFor(signal) {
  signal?.throwIfAborted();
  await new Promise((resolve) => {
    if (typeof setImmediate === "function") setImmediate(resolve);
    else {
      // setTimeout waits for 4 ms at least; a message doesn't.
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        port1.close();
        resolve();
      };
      port2.postMessage(null);
    }
  });
  signal?.throwIfAborted();
}
