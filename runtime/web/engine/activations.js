/** What turns a network's scores into probabilities. */

import { numbers, product } from "./numbers.js";

/** Probabilities from scores [N, …] with the classes along an axis; "none": the scores are explained as they are. */
export function activate(scores, activation, axis = 1) {
  const found = new Float32Array(scores.data.length);
  if (activation === "softmax") softmax(scores, axis, found);
  else if (activation === "sigmoid") {
    // Written with tanh, which doesn't overflow.
    scores.data.forEach((value, place) => {
      found[place] = (1 + Math.tanh(value / 2)) / 2;
    });
  } else found.set(scores.data);
  return numbers(found, scores.dims);
}

function softmax({ data, dims }, axis, found) {
  const classes = dims[axis];
  const step = product(dims.slice(axis + 1));
  const lines = data.length / (classes || 1);
  for (let line = 0; line < lines; line++) {
    const start = Math.floor(line / step) * classes * step + (line % step);
    let highest = -Infinity;
    for (let c = 0; c < classes; c++) highest = Math.max(highest, data[start + c * step]);
    const powers = new Float64Array(classes);
    let sum = 0;
    for (let c = 0; c < classes; c++) {
      powers[c] = Math.exp(data[start + c * step] - highest);
      sum += powers[c];
    }
    for (let c = 0; c < classes; c++) found[start + c * step] = powers[c] / sum;
  }
}

/** What the network's activation makes of its scores [N, …]. */
export function probabilitiesOf(scores, bundle) {
  return activate(scores, bundle.scores.activation, bundle.scores.classAxis ?? 1);
}
