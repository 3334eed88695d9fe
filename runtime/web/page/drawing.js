/** Maps on canvases, in the three forms that the page shows. */

import { atSize, colours, diverging, heatmap, overlay, signedMap, signedOverlay } from "../engine/heatmap.js";

// Below this, each pixel of what the network saw is worth seeing as a square.
const SMALL = 160;
// A saved picture of fewer pixels is enlarged to about this many, by a whole factor.
const SAVED = 512;

/** Draws a picture {data, width, height} in its own size; style brings it to that of the page. */
export function paint(canvas, { data, width, height }) {
  canvas.width = width;
  canvas.height = height;
  canvas.classList?.toggle("small", Math.max(width, height) < SMALL);
  const opaque = data.length === 4 * width * height ? data : withAlpha(data);
  canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(opaque), width, height), 0, 0);
}

/** A map as it is looked at: `view` is "overlay", "map" or "signed". */
export function drawnMap({ attribution, layout, seen }, { view, strength }) {
  const one = { data: attribution.data, dims: attribution.dims.slice(1) };
  const values = view === "signed" ? signedMap(one, layout) : heatmap(one, layout);
  if (view === "map" || !seen) return picture(view === "signed" ? diverging(values) : colours(values));
  const below = { data: seen.data, dims: [seen.height, seen.width, 3] };
  const draw = view === "signed" ? signedOverlay : overlay;
  return picture(draw(below, atSize(values, seen.height, seen.width), { strength }));
}

/** The file of a drawn picture. */
export function pngOf(drawn) {
  const canvas = new OffscreenCanvas(1, 1);
  paint(canvas, drawn);
  const factor = Math.max(1, Math.floor(SAVED / Math.max(drawn.width, drawn.height)));
  if (factor === 1) return canvas.convertToBlob({ type: "image/png" });
  const larger = new OffscreenCanvas(factor * drawn.width, factor * drawn.height);
  const context = larger.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(canvas, 0, 0, larger.width, larger.height);
  return larger.convertToBlob({ type: "image/png" });
}

/** Where a map is strongest, in words for those who don't see it: of nine parts, the one with the most heat. */
export function strongest({ attribution, layout }) {
  const { data, dims: [, height, width] } = heatmap(attribution, layout);
  const sums = new Float64Array(9);
  data.forEach((heat, place) => {
    const row = Math.floor((3 * Math.floor(place / width)) / height);
    sums[3 * row + Math.floor((3 * (place % width)) / width)] += heat;
  });
  const most = sums.indexOf(Math.max(...sums));
  const words = [["top", "middle", "bottom"][Math.floor(most / 3)], ["left", "centre", "right"][most % 3]];
  return words.join(" ").replace("middle centre", "centre");
}

/** Draws a view's scale of colours, from little to much, on a canvas of one row. */
export function paintScale(canvas, view) {
  const steps = Float32Array.from({ length: 128 }, (_, place) => place / 127);
  const signed = view === "signed";
  const line = { data: signed ? steps.map((share) => 2 * share - 1) : steps, dims: [1, 128] };
  paint(canvas, picture(signed ? diverging(line) : colours(line)));
}

const picture = ({ data, dims: [height, width] }) => ({ data, width, height });

function withAlpha(data) {
  const made = new Uint8ClampedArray((data.length / 3) * 4).fill(255);
  for (let pixel = 0; pixel < data.length / 3; pixel++) made.set(data.subarray(3 * pixel, 3 * pixel + 3), 4 * pixel);
  return made;
}
