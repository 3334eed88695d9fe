/**
 * Every error that a user can cause, as one small tree: the same as in Python, with the same words.
 */

import { closeMatch } from "./close_matches.js";

/** Base of all errors that this package raises on purpose; its text says what happened, where, and what to do. */
export class OnnxplainError extends Error {
  constructor(message, options) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** The network can't be used, or answers with NaN. */
export class ModelError extends OnnxplainError {}

/** The bundle is missing, altered, incomplete, or newer than this reader. */
export class BundleError extends OnnxplainError {}

/** A picture can't be read or doesn't fit the network. */
export class PictureError extends OnnxplainError {}

/** An unknown method, parameter or target, or a value out of range. */
export class ParameterError extends OnnxplainError {}

/** The asked-for execution provider isn't there. */
export class DeviceError extends OnnxplainError {}

/** The sentence for an unknown name, with the nearest known one suggested. */
export function unknown(kind, name, known) {
  const names = [...known].sort(byCodePoint);
  const near = closeMatch(String(name), names, 0.5);
  if (near !== null) return `unknown ${kind} ${quoted(name)}; did you mean ${quoted(near)}?`;
  const shown = names.slice(0, 20).join(", ") + (names.length > 20 ? ", …" : "");
  return `unknown ${kind} ${quoted(name)}; known: ${shown}`;
}

/** A value as the Python engine writes it in its errors. */
export function quoted(value) {
  if (typeof value === "string") {
    const quote = value.includes("'") && !value.includes('"') ? '"' : "'";
    const inside = value.replace(/\\/g, "\\\\").replace(/\n/g, "\\n").replace(/\r/g, "\\r").replace(/\t/g, "\\t");
    return quote + (quote === "'" ? inside.replace(/'/g, "\\'") : inside) + quote;
  }
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "number") return numberText(value);
  if (Array.isArray(value)) return listText(value);
  return String(value);
}

/** A number with six digits, as Python's format "g" writes it. */
export function shortNumber(value) {
  const [digits, exponent] = value.toExponential(5).split("e");
  if (!Number.isFinite(value)) return numberText(value);
  if (exponent >= -4 && exponent < 6) return String(Number(value.toPrecision(6)));
  return `${Number(digits)}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
}

/** Axes as Python writes a list of them. */
export function listText(values) {
  return `[${Array.from(values, quoted).join(", ")}]`;
}

function numberText(value) {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  // Python writes exponents with two digits at least, from 1e16 and below 1e-4 on.
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e16) && !Number.isSafeInteger(value)) {
    const [digits, exponent] = value.toExponential().split("e");
    return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
  }
  return String(value);
}

function byCodePoint(a, b) {
  const left = Array.from(a, (letter) => letter.codePointAt(0));
  const right = Array.from(b, (letter) => letter.codePointAt(0));
  const place = left.findIndex((code, index) => code !== right[index]);
  return place < 0 ? left.length - right.length : left[place] - (right[place] ?? -1);
}
