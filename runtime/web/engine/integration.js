/**
 * Integration rules: at which points of a path the gradient is taken, and what each is weighted by.
 *
 * `riemann_trapezoid` and `inclusive` are what other systems do; the other weights add up to 1.
 */

import { ParameterError, quoted } from "./errors.js";

// Far fewer points integrate any network's path.
const MOST_POINTS = 2000;

/** Points and weights of the Gauss-Legendre rule on [0, 1], a list of pairs; exact to degree 2 count − 1. */
export function gaussLegendre(count) {
  if (count > MOST_POINTS) {
    throw new ParameterError(`steps=${count} is out of range: a path has at most ${MOST_POINTS} points`);
  }
  const found = Array(count);
  for (let place = 0; place < Math.ceil(count / 2); place++) {
    let x = Math.cos((Math.PI * (place + 0.75)) / (count + 0.5));
    let slope;
    for (let turn = 0; turn < 20; turn++) {
      const step = legendre(count, x);
      slope = step.slope;
      const next = x - step.value / slope;
      const done = Math.abs(next - x) < 1e-16;
      x = next;
      if (done) break;
    }
    if (2 * place + 1 === count) x = 0;
    ({ slope } = legendre(count, x));
    const weight = 1 / ((1 - x * x) * slope * slope);
    found[place] = [(1 - x) / 2, weight];
    found[count - 1 - place] = [(1 + x) / 2, weight];
  }
  return found;
}

/** Legendre's polynomial of a degree and its slope at x. */
function legendre(degree, x) {
  let [before, value] = [1, x];
  for (let n = 2; n <= degree; n++) [before, value] = [value, ((2 * n - 1) * x * value - (n - 1) * before) / n];
  if (degree === 0) return { value: 1, slope: 0 };
  return { value, slope: (degree * (x * value - before)) / (x * x - 1) };
}

const even = (points, weight) => points.map((alpha) => [alpha, weight]);
const numbersTo = (count) => Array.from({ length: count }, (_, number) => number);

function fromEndToEnd(rule, count) {
  if (count < 2) {
    throw new ParameterError(
      `steps=${count} is too few: the rule ${quoted(rule)} includes both ends of the path; give 2`,
    );
  }
  // As numpy's linspace: the step times the number, and the end itself.
  return numbersTo(count).map((k) => (k === count - 1 ? 1 : k * (1 / (count - 1))));
}

function halvedEnds(table) {
  table[0][1] /= 2;
  table.at(-1)[1] /= 2;
  return table;
}

const midpoint = (count) =>
  even(
    numbersTo(count).map((k) => (k + 0.5) / count),
    1 / count,
  );
const inclusive = (count) => even(fromEndToEnd("inclusive", count), 1 / count);

const RULES = {
  gausslegendre: gaussLegendre,
  midpoint,
  trapezoid: (count) => halvedEnds(even(fromEndToEnd("trapezoid", count), 1 / (count - 1))),
  riemann_left: (count) =>
    even(
      numbersTo(count).map((k) => k / count),
      1 / count,
    ),
  riemann_right: (count) =>
    even(
      numbersTo(count).map((k) => (k + 1) / count),
      1 / count,
    ),
  riemann_middle: midpoint,
  riemann_trapezoid: (count) => halvedEnds(inclusive(count)),
  inclusive,
};

/** Points and weights of a rule on [0, 1], 0 being the path's start; ParameterError for an unknown one. */
export function pointsOf(rule, count) {
  if (!(rule in RULES)) {
    throw new ParameterError(`unknown rule ${quoted(rule)}; known: ${Object.keys(RULES).join(", ")}`);
  }
  if (count < 1 || count > MOST_POINTS) {
    throw new ParameterError(`steps=${count} is out of range: a path has 1 to ${MOST_POINTS} points`);
  }
  return RULES[rule](count);
}
