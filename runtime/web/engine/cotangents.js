/** What is explained of an output that is no list of classes: a cotangent of its shape, given or made from a class. */

import { ParameterError, listText, quoted } from "./errors.js";
import { allFinite, broadcast, numbers, product, sameDims } from "./numbers.js";
import { asNumbers } from "./parameters.js";
import { Chosen, FREE, asked, bestOf, nameOf } from "./targets.js";

/** The caller's cotangent for scores of the axes `of`, [N, …]: [*output], [N, *output] or [N, T, *output]. */
export function givenCotangents(cotangent, of, output) {
  const array = asNumbers(cotangent);
  const shape = of.slice(1);
  const dims = array?.dims ?? [];
  const leading = dims.length - shape.length;
  const wrong = leading < 0 || leading > 2 || !sameDims(dims.slice(leading), shape);
  if (array === null || wrong || (leading > 0 && dims[0] !== 1 && dims[0] !== of[0])) {
    throw new ParameterError(
      `a cotangent of shape ${listText(dims)} does not fit the output ${quoted(output.name)} ${listText(of)}`,
    );
  }
  if (!allFinite(array.data)) throw new ParameterError("the cotangent contains NaN or infinity");
  const targets = leading === 2 ? dims[1] : 1;
  const each = numbers(Float32Array.from(array.data, Number), [leading ? dims[0] : 1, targets, ...shape]);
  const table = Array.from({ length: of[0] }, () => Array(targets).fill(FREE));
  return new Chosen(table, leading === 2, broadcast(each, [of[0], targets, ...shape]));
}

/** Cotangents that add up a class's scores wherever it is the best one: a segmentation's usual explanation. */
export function classCotangents(targets, scores, output, best) {
  const axis = output.classAxis;
  if (axis === null) {
    throw new ParameterError(
      `the output ${quoted(output.name)} ${listText(output.shape)} holds no classes; say what is explained by ` +
        "cotangent=, an array of that shape without the batch axis",
    );
  }
  const [count, ...rest] = scores.dims;
  const classes = scores.dims[axis];
  const step = product(scores.dims.slice(axis + 1));
  const { winners, places } = winsOf(scores, classes, step);
  const counts = numbers(places, [count, classes]);
  const chosen =
    best === null ? asked(targets, count, classes, output.labels).by(counts) : bestOf(best, targets, counts);
  const size = product(rest);
  const found = new Float32Array(count * chosen.count * size);
  chosen.table.forEach((row, image) => {
    row.forEach((target, index) => {
      if (!places[image * classes + target]) {
        const name = nameOf(target, output.labels);
        throw new ParameterError(
          `class ${name} is nowhere the best one in image ${image}; name another, or a cotangent`,
        );
      }
      const lines = size / classes;
      for (let line = 0; line < lines; line++) {
        if (winners[image * lines + line] !== target) continue;
        const at = Math.floor(line / step) * classes * step + (line % step) + target * step;
        found[(image * chosen.count + index) * size + at] = 1;
      }
    });
  });
  return new Chosen(chosen.table, chosen.several, numbers(found, [count, chosen.count, ...rest]));
}

/** The class that wins at each place, and at how many places each class wins. */
function winsOf(scores, classes, step) {
  const [count] = scores.dims;
  const lines = scores.data.length / classes / count;
  const winners = new Int32Array(count * lines);
  const places = new Float64Array(count * classes);
  for (let line = 0; line < count * lines; line++) {
    const start = Math.floor(line / step) * classes * step + (line % step);
    let best = 0;
    for (let c = 1; c < classes; c++) if (scores.data[start + c * step] > scores.data[start + best * step]) best = c;
    winners[line] = best;
    places[Math.floor(line / lines) * classes + best] += 1;
  }
  return { winners, places };
}
