/**
 * Integrated gradients on the path from a blurred image to the image, through scale space.
 *
 * Xu, Venugopalan, Sundararajan: Attribution in Scale and Space (2020, arXiv:2004.03383).
 */

import { spatialAxes } from "../images.js";
import { matrixProduct } from "../linear_algebra.js";
import { numbers, product, range } from "../numbers.js";
import { chunks } from "../planner.js";

/** A Gaussian's kernel ends after this many deviations, as scipy's does; beyond the picture's edge is 0. */
const TRUNCATE = 4;
/** The step in σ, in pixels, by which the reference implementation takes the path's derivative. */
const DIFFERENCE = 0.01;

/**
 * Σ g(L)·(change of L) [N, T, …] over the scales from `sigma` pixels down to 0, L being the image blurred. `rule`
 * "midpoint" takes the gradient between two scales, times the difference of the images at them. "riemann_left" is the
 * reference implementation: the gradient at the finer scale, times the derivative there by a difference.
 */
export async function blurIntegratedGradients(work) {
  const { sigma, steps, rule } = work.parameters;
  const values = await work.values();
  const planes = new Planes(values, spatialAxes(work.bundle.image.layout, values));
  const [count, ...image] = values.dims;
  const targets = work.asked.count;
  const size = product(image);
  const maps = new Float64Array(count * targets * size);
  const perRun = work.rowsPerRun(work.bundle.graphs.gradient, targets);
  for (const chunk of chunks(count, steps, perRun)) {
    const images = range(chunk.images[1] - chunk.images[0]).map((place) => place + chunk.images[0]);
    const scales = range(chunk.steps[1] - chunk.steps[0] + 1).map((k) => (k + chunk.steps[0]) * (sigma / steps));
    const along = images.flatMap((number) => planes.along(number, scales, rule));
    const rows = new Float32Array(along.length * size);
    along.forEach(({ point }, row) => rows.set(point, row * size));
    const of = along.map((_, row) => images[Math.floor(row / (scales.length - 1))]);
    const gradients = await work.gradientsAt(numbers(rows, [along.length, ...image]), of);
    along.forEach(({ change }, row) => {
      for (let target = 0; target < targets; target++) {
        const [to, from] = [(of[row] * targets + target) * size, (row * targets + target) * size];
        for (let place = 0; place < size; place++) maps[to + place] += gradients.data[from + place] * change[place];
      }
    });
    work.advance(along.length / steps);
    const [first, past] = chunk.images;
    const part = () => maps.subarray(first * targets * size, past * targets * size);
    work.partial.show(work, chunk.images, () => numbers(Float32Array.from(part()), [past - first, targets, ...image]));
  }
  return numbers(Float32Array.from(maps), [count, targets, ...image]);
}

/** The planes of images [N, …], blurred by products with a matrix for each axis. */
export class Planes {
  constructor(values, axes) {
    const [height, width] = axes.map((axis) => values.dims[axis]);
    Object.assign(this, { values, height, width, planar: axes[0] === 2, kept: new Map() });
    this.size = product(values.dims.slice(1));
    this.channels = this.size / (height * width);
  }

  /** Where the gradient of an image is taken and what it is multiplied by, for every interval of scales. */
  along(image, scales, rule) {
    const intervals = range(scales.length - 1);
    if (rule === "midpoint") {
      const edges = scales.map((scale) => this.blurred(image, scale));
      return intervals.map((k) => ({
        point: this.blurred(image, scales[k] + (scales[k + 1] - scales[k]) / 2),
        change: edges[k].map((value, place) => value - edges[k + 1][place]),
      }));
    }
    return intervals.map((k) => {
      const [point, beside] = [this.blurred(image, scales[k]), this.blurred(image, scales[k] + DIFFERENCE)];
      const width = scales[k + 1] - scales[k];
      return { point, change: point.map((value, place) => width * ((value - beside[place]) / DIFFERENCE)) };
    });
  }

  /** An image blurred by a Gaussian of so many pixels, float64; 0 beyond the edges. */
  blurred(image, sigma) {
    const { height, width, channels, planar } = this;
    const rows = gaussianMatrix(height, sigma);
    const columns = width === height ? rows : gaussianMatrix(width, sigma); // symmetric: its own transposed
    const source = this.values.data.subarray(image * this.size, (image + 1) * this.size);
    const made = new Float64Array(this.size);
    const area = height * width;
    for (let channel = 0; channel < channels; channel++) {
      const at = (pixel) => (planar ? channel * area + pixel : pixel * channels + channel);
      const plane = Float64Array.from({ length: area }, (_, pixel) => source[at(pixel)]);
      const down = matrixProduct(rows, plane, height, height, width);
      matrixProduct(down, columns, height, width, width).forEach((value, pixel) => {
        made[at(pixel)] = value;
      });
    }
    return made;
  }
}

/** The blur of a line of `size` pixels as a matrix [size, size]; a picture's is a product of two. */
export function gaussianMatrix(size, sigma) {
  const radius = Math.trunc(TRUNCATE * sigma + 0.5);
  const matrix = new Float64Array(size * size);
  const kernel = range(2 * radius + 1).map((k) => (radius ? Math.exp(-0.5 * ((k - radius) / sigma) ** 2) : 1));
  const sum = kernel.reduce((all, weight) => all + weight, 0);
  for (let row = 0; row < size; row++) {
    for (let column = Math.max(0, row - radius); column <= Math.min(size - 1, row + radius); column++) {
      matrix[row * size + column] = kernel[row - column + radius] / sum;
    }
  }
  return matrix;
}
