/** What a batch of images and a method's parameters give to a graph's inputs. */

import { takes } from "./bundle.js";
import { ParameterError, quoted } from "./errors.js";
import { boundsOf, fillValues } from "./fills.js";
import { numbers, product } from "./numbers.js";
import { Feed } from "./summing.js";

/** The targets, or the cotangents of networks whose scores aren't class scores. */
export function chosenFeeds(chosen) {
  const feeds = { target: new Feed(chosen.fed, { perImage: true }) };
  if (chosen.cotangents) feeds.cotangent = new Feed(chosen.cotangents, { perImage: true });
  return feeds;
}

/** The steps and parameters of a method, for images `rows` [N, …] and their explained `values` [N, …]. */
export async function methodFeeds(graph, parameters, steps, values, rows, bundle) {
  const feeds = { steps: new Feed(numbers(steps.data, [1, ...steps.dims]), { perStep: true }) };
  if (takes(graph, "sigma")) feeds.sigma = new Feed(deviationsOf(await values(), parameters), { perImage: true });
  if ("seed" in parameters) feeds.seed = new Feed(numbers(BigInt64Array.of(BigInt(parameters.seed)), [1]));
  for (const name of ["baseline", "low", "high", "fill"]) {
    if (!takes(graph, name)) continue;
    if (bundle.single?.pictureInput && ["mean", "blur", "random"].includes(parameters[name])) {
      throw new ParameterError(
        `${name}=${quoted(parameters[name])} is made of the image that this file prepares inside; give a number, ` +
          "black, white or an array",
      );
    }
    const around = name === "fill" || bundle.single ? rows : await values();
    // A graph that serves several methods has the input even where this one has no such parameter.
    const content = fillValues(name, parameters[name] ?? 0, around, bundle, parameters.seed ?? 0);
    feeds[name] = new Feed(content, { perImage: content.dims[0] === around.dims[0] });
  }
  for (const { role, shape } of graph.inputs) {
    const value = parameters[role];
    if (role in feeds || (typeof value !== "number" && typeof value !== "boolean")) continue;
    const count = shape[0] === "N" ? rows.dims[0] : 1;
    const each = numbers(new Float32Array(count).fill(Number(value)), [count]);
    feeds[role] = new Feed(each, { perImage: shape[0] === "N" });
  }
  return feeds;
}

/**
 * The noise's standard deviation for each image, float32 [N], in the explained values' units: `noise` is a share of
 * each image's own range, with `noise_of` "batch" of that of all images of the call; with "absolute" it is σ itself.
 */
export function deviationsOf(values, parameters) {
  const [count, ...image] = values.dims;
  const size = product(image);
  const noise = Math.fround(parameters.noise);
  const shareOf = parameters.noise_of ?? "image";
  const found = new Float32Array(count);
  for (let row = 0; row < count; row++) {
    if (shareOf === "absolute") {
      found[row] = noise;
      continue;
    }
    const [low, high] =
      shareOf === "batch" ? boundsOf(values.data, 0, count * size) : boundsOf(values.data, row * size, size);
    found[row] = noise * Math.fround(high - low);
  }
  return numbers(found, [count]);
}
