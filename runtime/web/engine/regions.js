/** Regions of pictures: given segments, and the growing of the most important ones. */

import { ParameterError, listText } from "./errors.js";
import { numbers, product, range, roundEven, rowsOf, sameDims } from "./numbers.js";

// The settings of the reference implementation of XRAI, for pictures of this side.
const SIDE = 224;
const SMALLEST_GAIN = 50;

/**
 * The caller's segments for each of `count` images, as lists of masks (a Uint8Array [H · W] each). Whole numbers are
 * labels, [H, W] for all images or [N, H, W] for each; `masks: true` beside dims says that they are 0 and 1, [S, H, W]
 * for all or [N, S, H, W] for each.
 */
export function givenMasks(segments, count, height, width) {
  const { dims } = segments;
  const masks = Number(Boolean(segments.masks));
  const rank = dims.length - masks;
  if (sameDims(dims.slice(-2), [height, width]) && (rank === 2 || (rank === 3 && dims[0] === count)) && product(dims)) {
    const whole = rank === 3 ? segments : numbers(segments.data, [1, ...dims]);
    const each = range(whole.dims[0]).map((image) => rowsOf(whole, image, image + 1).data);
    const made = each.map((data) => (masks ? splitMasks(data, height * width) : masksOfLabels(data)));
    return range(count).map((image) => made[rank === 3 ? image : 0]);
  }
  throw new ParameterError(
    `segments of shape ${listText(dims)} fit no picture here; give whole numbers [${height}, ${width}] or [${count}, ` +
      `${height}, ${width}], or masks of True and False [S, ${height}, ${width}] or [${count}, S, ${height}, ${width}]`,
  );
}

function splitMasks(data, size) {
  return range(data.length / size).map((mask) =>
    Uint8Array.from(data.subarray(mask * size, (mask + 1) * size), Boolean),
  );
}

function masksOfLabels(data) {
  const labels = Float64Array.from(data, Number);
  return [...new Set(labels)].sort((a, b) => a - b).map((label) => Uint8Array.from(labels, (own) => own === label));
}

/**
 * The map of regions added one by one, best first, each worth the mean attribution of its new pixels. Segments that
 * would add too few pixels (50 in a picture of 224 by 224) are left out; what no segment covers gets its own mean.
 *
 * Kapishnikov et al.: XRAI (2019, arXiv:1906.02825), algorithm 1.
 */
export function grown(attribution, masks) {
  const size = attribution.length;
  const least = Math.max(1, Math.min(SMALLEST_GAIN, roundEven((SMALLEST_GAIN * size) / SIDE ** 2)));
  const pixels = range(size);
  const sums = masks.map((mask) => sumOver(mask, attribution, pixels));
  const sizes = masks.map((mask) => mask.reduce((all, inside) => all + inside, 0));
  const worth = new Float64Array(size);
  const free = new Uint8Array(size).fill(1);
  for (;;) {
    let best = -1;
    masks.forEach((_, m) => {
      if (sizes[m] >= least && (best < 0 || sums[m] / sizes[m] > sums[best] / sizes[best])) best = m;
    });
    if (best < 0) break;
    const added = pixels.filter((pixel) => masks[best][pixel] && free[pixel]);
    fill(worth, free, attribution, added);
    masks.forEach((mask, m) => {
      sums[m] -= sumOver(mask, attribution, added);
      for (const pixel of added) sizes[m] -= mask[pixel];
    });
  }
  fill(
    worth,
    free,
    attribution,
    pixels.filter((pixel) => free[pixel]),
  );
  return worth;
}

function sumOver(mask, values, pixels) {
  let sum = 0;
  for (const pixel of pixels) if (mask[pixel]) sum += values[pixel];
  return sum;
}

/** Gives some pixels their mean. */
function fill(worth, free, values, pixels) {
  if (!pixels.length) return;
  const mean = pixels.reduce((all, pixel) => all + values[pixel], 0) / pixels.length;
  for (const pixel of pixels) {
    worth[pixel] = mean;
    free[pixel] = 0;
  }
}
