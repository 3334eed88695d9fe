/** Checks a method's parameters against the kinds and ranges that the bundle gives. */

import { ParameterError, quoted, unknown } from "./errors.js";
import { allFinite, numbers } from "./numbers.js";

// What `baseline` and `fill` may be called instead of a number: see fills.js.
const NAMED_FILLS = ["black", "white", "mean", "blur"];
const KIND_WORDS = { int: "whole number", float: "number", size: "whole number or pair of them" };

/** All parameters of a method, the given ones checked and the others at their defaults, in the bundle's order. */
export function checkParameters(method, given) {
  for (const name of Object.keys(given)) {
    if (name in method.parameters) continue;
    const known = Object.keys(method.parameters);
    throw new ParameterError(
      known.length
        ? unknown(`parameter of ${method.name}`, name, known)
        : `${method.name} has no parameters, not ${quoted(name)}`,
    );
  }
  const entries = Object.values(method.parameters);
  return Object.fromEntries(
    entries.map((entry) => [
      entry.name,
      checked(entry, given[entry.name] === undefined ? entry.default : given[entry.name]),
    ]),
  );
}

function checked(parameter, value) {
  return CHECKS[parameter.kind](parameter, value);
}

function number(parameter, value) {
  const { name, kind, minimum, maximum } = parameter;
  if (typeof value !== "number" || !Number.isFinite(value)) {
    throw new ParameterError(`${name}=${quoted(value)} is no ${KIND_WORDS[kind]}`);
  }
  if (kind !== "float" && !Number.isInteger(value)) {
    throw new ParameterError(`${name}=${quoted(value)} must be a whole number`);
  }
  if ((minimum !== null && value < minimum) || (maximum !== null && value > maximum)) {
    throw new ParameterError(`${name}=${quoted(value)} is out of range: ${rangeOf(parameter)}`);
  }
  return value;
}

function rangeOf({ choices, minimum, maximum, kind }) {
  if (choices.length) return choices.join(", ");
  const text = (bound) => (kind === "float" && Number.isInteger(bound) ? bound.toFixed(1) : quoted(bound));
  if (minimum !== null && maximum !== null) return `${text(minimum)} to ${text(maximum)}`;
  if (minimum !== null) return `at least ${text(minimum)}`;
  return maximum !== null ? `at most ${text(maximum)}` : "any number";
}

function size(parameter, value) {
  if (!Array.isArray(value)) return number(parameter, value);
  if (value.length !== 2) {
    throw new ParameterError(`${parameter.name}=${quoted(value)} must be one whole number, or a pair (rows, columns)`);
  }
  return value.map((side) => number(parameter, side));
}

function flag(parameter, value) {
  if (typeof value === "boolean") return value;
  throw new ParameterError(`${parameter.name}=${quoted(value)} must be True or False`);
}

function choice(parameter, value) {
  if (typeof value === "string" && parameter.choices.includes(value)) return value;
  const known = parameter.choices.length ? [parameter.choices.join(", ")] : [];
  if (parameter.kind === "array") known.push("an array (.npy file)");
  const text = known.length ? `; it can be ${known.join(" or ")}` : "";
  throw new ParameterError(`unknown ${parameter.name} ${quoted(value)}${text}`);
}

function layerName(parameter, value) {
  if (typeof value === "string") return value;
  throw new ParameterError(`${parameter.name}=${quoted(value)} is no name`);
}

/** A number, a name, or float32 values that broadcast to the images. */
function image(parameter, value) {
  if (typeof value === "string") {
    const names = parameter.choices.length ? parameter.choices : NAMED_FILLS;
    if (names.includes(value)) return value;
    throw new ParameterError(`${unknown(parameter.name, value, names)} (or a number, or an array)`);
  }
  const array = arrayOf(parameter, value);
  return array.dims.length ? numbers(Float32Array.from(array.data, Number), array.dims) : Number(array.data[0]);
}

function array(parameter, value) {
  if (value === null) return null;
  return typeof value === "string" ? choice(parameter, value) : arrayOf(parameter, value);
}

/** Numbers, nested lists or {data, dims} as {data, dims}. */
function arrayOf(parameter, value) {
  const found = asNumbers(value);
  if (found === null) {
    throw new ParameterError(`${parameter.name}=${quoted(value)} is no number, name or array of numbers`);
  }
  if (!allFinite(found.data)) throw new ParameterError(`${parameter.name} contains NaN or infinity`);
  return found;
}

/** A number, nested lists of numbers, or {data, dims} with as many numbers as it says; null for anything else. */
export function asNumbers(value) {
  if (typeof value === "number") return numbers(Float64Array.of(value), []);
  if (Array.isArray(value)) {
    const parts = value.map(asNumbers);
    if (parts.includes(null) || parts.some((part) => String(part.dims) !== String(parts[0].dims))) return null;
    const data = Float64Array.from(parts.flatMap((part) => [...part.data]));
    return numbers(data, [value.length, ...(parts[0]?.dims ?? [])]);
  }
  if (value === null || typeof value !== "object" || !Array.isArray(value.dims) || value.data?.length === undefined)
    return null;
  const count = value.dims.reduce((all, side) => all * side, 1);
  if (count !== value.data.length) return null;
  return { ...value, data: Array.isArray(value.data) ? Float64Array.from(value.data, Number) : value.data };
}

const CHECKS = { int: number, float: number, bool: flag, size, choice, image, array, layer: layerName };
