/** The segments of a picture that are kept or replaced as a whole: a grid, or whatever the user gives. */

import { ParameterError, listText } from "./errors.js";
import { numbers, rowsOf, sameDims } from "./numbers.js";

/** The number of every pixel's segment, a list of {labels [H · W], count}: one for all images or one for each. */
export function segmentsOf(parameters, images, height, width) {
  const { segments: given, cells } = parameters;
  if (given !== null && typeof given === "object") return givenSegments(given, images, height, width);
  if (cells > Math.min(height, width)) {
    throw new ParameterError(
      `cells=${cells} is out of range for an image of ${height}x${width}: at most ${Math.min(height, width)}`,
    );
  }
  if (given === "slic") {
    throw new ParameterError(
      "segments='slic' needs scikit-image: pip install 'onnxplain[segments]', or use segments='grid', or give " +
        "segments= of your own",
    );
  }
  return [{ labels: grid(cells, height, width), count: cells * cells }];
}

/** cells × cells rectangles, numbered row by row, of sides as equal as whole pixels allow. */
function grid(cells, height, width) {
  return Int32Array.from({ length: height * width }, (_, pixel) => {
    const [row, column] = [Math.floor(pixel / width), pixel % width];
    return Math.floor((row * cells) / height) * cells + Math.floor((column * cells) / width);
  });
}

function givenSegments(array, images, height, width) {
  const shapes = [
    [height, width],
    [1, height, width],
    [images, height, width],
  ];
  if (!shapes.some((shape) => sameDims(shape, array.dims))) {
    throw new ParameterError(
      `segments of shape ${listText(array.dims)} don't fit: [${height}, ${width}] is right for all images, ` +
        `[${images}, ${height}, ${width}] for one each`,
    );
  }
  if (array.data.some((value) => Number(value) !== Math.floor(Number(value)))) {
    throw new ParameterError("segments must hold whole numbers, one for each pixel: the number of its segment");
  }
  const each = array.dims.length === 2 ? numbers(array.data, [1, height, width]) : array;
  return Array.from({ length: each.dims[0] }, (_, image) => withoutGaps(rowsOf(each, image, image + 1).data));
}

/** The same segments with numbers 0 … S − 1. */
function withoutGaps(labels) {
  const known = [...new Set(Array.from(labels, Number))].sort((a, b) => a - b);
  const places = new Map(known.map((label, place) => [label, place]));
  return { labels: Int32Array.from(labels, (label) => places.get(Number(label))), count: known.length };
}
