/** Checks the list of preprocessing steps that a bundle names. */

import { ParameterError, quoted, unknown } from "./errors.js";
import { KERNELS } from "./resize.js";

export const ORDER = ["exif", "colour", "resize", "crop", "scale", "mean", "std", "layout"];
export const COLOURS = { RGB: 3, BGR: 3, GREY: 1 };
const LAYOUTS = ["NCHW", "NHWC"];

const FIELDS = {
  exif: {},
  colour: { order: Object.keys(COLOURS) },
  resize: {
    rule: ["shorter", "exact"],
    size: (size) => isCount(size) || isSize(size),
    kernel: KERNELS,
    antialias: [true, false],
    round: [true, false],
  },
  crop: { size: isSize },
  scale: { factor: (factor) => isNumber(factor) && factor !== 0 },
  mean: { values: areNumbers },
  std: { values: (values) => areNumbers(values) && !values.includes(0) },
  layout: { order: LAYOUTS },
};

/** The steps as plain objects; ParameterError names an unknown, misplaced or wrong one. */
export function checkSteps(steps) {
  const checked = steps.map((step) => ({ ...step }));
  checked.forEach((step, index) => {
    const kind = step.step;
    if (!ORDER.includes(kind)) {
      throw new ParameterError(`preprocessing step ${index + 1}: ${unknown("step", textOf(kind), ORDER)}`);
    }
    const wrong = wrongFields(step, FIELDS[kind]) || wrongSize(step);
    if (wrong) throw new ParameterError(`preprocessing step ${index + 1} (${kind}): ${wrong}`);
  });
  checkOrder(checked.map((step) => step.step));
  checkChannels(checked);
  return checked;
}

function textOf(value) {
  return typeof value === "string" ? value : quoted(value);
}

function wrongFields(step, fields) {
  for (const name of Object.keys(step)) {
    if (name !== "step" && !(name in fields)) return unknown("entry", name, Object.keys(fields));
  }
  for (const [name, allowed] of Object.entries(fields)) {
    if (!(name in step)) return `${quoted(name)} is missing`;
    const value = step[name];
    if (typeof allowed === "function") {
      if (!allowed(value)) return `${quoted(name)} can't be ${quoted(value)}`;
    } else if (!allowed.includes(value)) {
      return unknown(name, textOf(value), allowed.map(textOf));
    }
  }
  return "";
}

function wrongSize(step) {
  if (step.step === "resize" && (step.rule === "shorter") !== Number.isInteger(step.size)) {
    return "'size' must be one number for rule 'shorter' and [height, width] for rule 'exact'";
  }
  return "";
}

function checkOrder(kinds) {
  for (const kind of ORDER) {
    if (kinds.filter((other) => other === kind).length > 1) {
      throw new ParameterError(`preprocessing has step ${quoted(kind)} twice`);
    }
  }
  if (!kinds.includes("layout")) throw new ParameterError("preprocessing has no 'layout' step: say NCHW or NHWC");
  const places = kinds.map((kind) => ORDER.indexOf(kind));
  if (places.some((place, index) => index > 0 && place < places[index - 1])) {
    throw new ParameterError(`preprocessing steps are ${kinds.join(", ")}; the order must be ${ORDER.join(", ")}`);
  }
}

function checkChannels(steps) {
  const colour = steps.find((step) => step.step === "colour");
  const channels = colour ? COLOURS[colour.order] : 3;
  for (const step of steps) {
    if (![0, 1, channels].includes((step.values ?? []).length)) {
      throw new ParameterError(
        `preprocessing ${step.step} has ${step.values.length} values for a picture of ${channels} channels`,
      );
    }
  }
}

function isCount(value) {
  return Number.isInteger(value) && value >= 1 && value <= 100_000;
}

function isSize(value) {
  return Array.isArray(value) && value.length === 2 && value.every(isCount);
}

function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

function areNumbers(values) {
  return Array.isArray(values) && values.length > 0 && values.every(isNumber);
}
