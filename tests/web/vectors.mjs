/**
 * Compares the JavaScript engine with the vectors that Python's recorded: node vectors.mjs FOLDER
 *
 * Prints as JSON, for each file, how many cases there were, how many don't concern this engine, and what is wrong.
 */

import fs from "node:fs";
import path from "node:path";
import { activate } from "../../runtime/web/engine/activations.js";
import * as cams from "../../runtime/web/engine/cams.js";
import { deviationsOf } from "../../runtime/web/engine/feeds.js";
import { baselines, fillValues } from "../../runtime/web/engine/fills.js";
import * as drawing from "../../runtime/web/engine/heatmap.js";
import { pointsOf } from "../../runtime/web/engine/integration.js";
import { Planes, gaussianMatrix } from "../../runtime/web/engine/loops/blur_path.js";
import { guidedPath } from "../../runtime/web/engine/loops/guided_path.js";
import { expectedDraws } from "../../runtime/web/engine/loops/paths.js";
import { product } from "../../runtime/web/engine/numbers.js";
import { checkParameters } from "../../runtime/web/engine/parameters.js";
import * as planner from "../../runtime/web/engine/planner.js";
import { findPlan } from "../../runtime/web/engine/plans.js";
import { prepare, resizedShape } from "../../runtime/web/engine/preprocessing.js";
import { checkSteps } from "../../runtime/web/engine/preprocessing_steps.js";
import { uniform } from "../../runtime/web/engine/random.js";
import { givenMasks, grown } from "../../runtime/web/engine/regions.js";
import { interpolationMatrix, resize } from "../../runtime/web/engine/resize.js";
import { segmentsOf } from "../../runtime/web/engine/segments.js";
import { findSolver } from "../../runtime/web/engine/solvers.js";
import { findFinish } from "../../runtime/web/engine/summing.js";
import { asked, bestOf } from "../../runtime/web/engine/targets.js";
import { unknown } from "../../runtime/web/engine/errors.js";

const SKIP = Symbol("not of this engine");
const LEVELS = 719 * 701;

const numbersOf = (value) =>
  typeof value === "string" ? Number({ inf: "Infinity", "-inf": "-Infinity", nan: "NaN" }[value] ?? NaN) : value;
const isArray = (value) =>
  value !== null && typeof value === "object" && Array.isArray(value.shape) && Array.isArray(value.data);
const array = ({ shape, data }, Data = Float32Array) => ({ data: Data.from(data, numbersOf), dims: shape });
const given = (value) => (isArray(value) ? array(value) : value);
const pictureOf = ({ shape: [height, width, channels], data }) => ({
  data: Uint8Array.from(data),
  height,
  width,
  channels,
});
const bundleOf = (layout, steps = []) => ({ image: { layout }, steps, inside: null });
const chunkList = ({ images, steps, first, last }) => [...images, ...steps, first, last];

const MEMORY = {
  parse_memory: ({ memory }) => planner.parseMemory(memory),
  rows_per_run: (c) => planner.rowsPerRun(c.bytes_per_row, c.memory, c.targets, c.most, c.beside),
  useful_rows: (c) => planner.usefulRows(c.bytes_per_row, c.threads, c.most),
  chunks: (c) => planner.chunks(c.images, c.steps, c.rows, { shared: c.shared }).map(chunkList),
  images_at_once: (c) => planner.imagesAtOnce(c.images, c.room, c.held, c.beside),
};

const CAMS = {
  scorecam: (c) => cams.weighted(array(c.features), array(c.gains, Float64Array)),
  scorecam_masks: (c) => cams.scorecamMasks(array(c.features), c.size),
  ablationcam: () => SKIP, // lies in the loop here
  enlarged: (c) => cams.upsampled(array(c.maps), c.size, "bilinear"),
  enlarged_in_bytes: (c) => cams.upsampled(array(c.maps), c.size, "bytes"),
  on_grid: (c) => cams.onGrid(array(c.values), c),
  in_layout: (c) => cams.inLayout(array(c.values), c.layout, c.before && array(c.before).data),
  single_places: (c) => cams.singlePlaces(array(c.features), c.first, c.last),
  guided: (c) => cams.guided(array(c.maps), array(c.gradients), c.layout),
};

const PATHS = {
  gaussian_matrix: ({ size, sigma }) => gaussianMatrix(size, sigma),
  blurred: ({ images, sigma, axes }) => {
    const values = array(images);
    const planes = new Planes(values, axes);
    return Array.from({ length: values.dims[0] }, (_, image) => [...planes.blurred(image, sigma)]).flat();
  },
  expected_draws: (c) => expectedDraws(c.samples, c.baselines, c.seed, c.fresh),
  guided_path: async (c) => {
    const [images, starts, coefficients] = [array(c.images), array(c.starts), array(c.coefficients)];
    const size = coefficients.data.length;
    const gradient = async (rows) => rows.map((value, place) => 2 * coefficients.data[place % size] * value);
    return guidedPath(gradient, images, starts, size, c, () => {});
  },
};

const DRAWING = {
  overlay: (c) => drawing.overlay(array(c.seen, Uint8Array), array(c.heat), options(c)),
  signed_overlay: (c) => drawing.signedOverlay(array(c.seen, Uint8Array), array(c.share), options(c)),
  diverging: (c) => drawing.diverging(array(c.share)),
  overlay_original: (c) => drawing.overlayOriginal(array(c.original, Uint8Array), array(c.heat), c.box, options(c)),
  colours: (c) => {
    const ramp = { data: Float64Array.from({ length: 256 }, (_, level) => level / 255), dims: [256] };
    return Buffer.from(drawing.colours(ramp, c.colour_map).data).toString("hex");
  },
  heatmap: (c) => drawing.heatmap(array(c.attribution), c.layout, options(c)),
  signed_map: (c) => drawing.signedMap(array(c.attribution), c.layout, c.percentile),
};

function options({ colour_map: colourMap, strength, percentile, statistic, reduction }) {
  const all = Object.entries({ colourMap, strength, percentile, statistic, reduction });
  return Object.fromEntries(all.filter(([, value]) => value !== undefined));
}

function regions(c) {
  if (c.call === "grid") return segmentsOf({ segments: "grid", cells: c.cells }, 1, c.height, c.width)[0].labels;
  if (c.call === "segments") {
    const parameters = { segments: given(c.segments), cells: c.cells ?? 1 };
    return segmentsOf(parameters, c.images, ...c.size).flatMap(({ labels }) => [...labels]);
  }
  const [height, width] = c.attribution.shape;
  const segments = c.masks ? { ...array(c.masks), masks: true } : array(c.segments);
  return grown(array(c.attribution, Float64Array).data, givenMasks(segments, 1, height, width)[0]);
}

function prepared(c) {
  if (!c.steps) return SKIP; // presets are made at export
  const steps = checkSteps(c.steps);
  if (!c.pixels) return SKIP;
  return prepare(pictureOf(c.pixels), steps);
}

function resized(c) {
  if (c.call === "matrix") return interpolationMatrix(c.source, c.target, c.kernel, c.antialias, c.box ?? null);
  if (c.call === "resized_shape") return resizedShape(c, c.step);
  const { kernel, antialias, rounded } = c;
  return resize(pictureOf(c.pixels), ...c.size, { kernel, antialias, rounded });
}

function solved(c) {
  const solver = findSolver(c.solver);
  const design = solver.design(c.parameters, c.segments);
  const found = { states: design.states };
  // Designs whose images all count alike have no weights here.
  if (design.weights.length) found.weights = design.weights;
  if (c.scores) found.expected = solver.solve(design, array(c.scores, Float64Array), c.parameters);
  return found;
}

function filled(c) {
  const rows = array(c.rows);
  if ("baselines" in c) {
    return [...baselines(given(c.baselines), rows, bundleOf(c.layout ?? "NCHW"), c.draws, c.seed)].flatMap(
      ({ data }) => [...data],
    );
  }
  return fillValues("fill", given(c.value), rows, bundleOf(c.layout, c.steps), c.seed);
}

function parametersOf(c) {
  const fields = ([name, entry]) => [name, { minimum: null, maximum: null, choices: [], ...entry, name }];
  const method = { name: c.method, parameters: Object.fromEntries(Object.entries(c.entries).map(fields)) };
  const values = Object.entries(c.given).map(([name, value]) => [name, given(value)]);
  return checkParameters(method, Object.fromEntries(values));
}

const ANSWERS = {
  plans: (c) => findPlan(c.rule).rule(c.parameters, c.height, c.width),
  integration: ({ rule, count }) => pointsOf(rule, count).flat(),
  random: (c) => {
    const levels = uniform(c.seed, c.draws, c.shape).map((value) => value * LEVELS - 0.5);
    return { levels: c.from === undefined ? levels : levels.slice(c.from, c.from + product(c.levels.shape)) };
  },
  masks: () => SKIP, // made by the graphs
  memory: (c) => MEMORY[c.call](c),
  targets: (c) => {
    const scores = array(c.scores);
    const [count, classes] = scores.dims;
    const found =
      c.best === null ? asked(c.targets, count, classes, c.labels).by(scores) : bestOf(c.best, c.targets, scores);
    return { table: found.table.flat(), several: found.several };
  },
  unknown_names: ({ kind, name, known }) => unknown(kind, name, known),
  parameters: parametersOf,
  solvers: solved,
  cams: (c) => (CAMS[c.call] ?? ((e) => cams.findCam(e.call)(array(e.features), array(e.gradients))))(c),
  sums: (c) => {
    if (c.call === "activate") return activate(array(c.scores), c.activation);
    if (c.call === "deviations") return deviationsOf(array(c.values), c.parameters);
    return findFinish(c.call)(array(c.total), array(c.norm));
  },
  fills: filled,
  paths: (c) => PATHS[c.call](c),
  regions,
  resizing: resized,
  preprocessing: prepared,
  heatmaps: (c) => DRAWING[c.call](c),
  drawing: (c) => DRAWING[c.call](c),
};

/** Why a value isn't the recorded one; "" where it is. */
function difference(found, expected, tolerance) {
  if (isArray(expected)) {
    const data = found?.data ?? found;
    if (found?.dims && String(found.dims) !== String(expected.shape))
      return `[${found.dims}] in place of [${expected.shape}]`;
    return difference(Array.from(data, Number), expected.data, tolerance);
  }
  if (Array.isArray(expected)) {
    if (found.length !== expected.length) return `${found.length} in place of ${expected.length}`;
    return expected.map((value, place) => difference(found[place], value, tolerance)).find(Boolean) ?? "";
  }
  if (expected !== null && typeof expected === "object") {
    return (
      Object.keys(expected)
        .map((key) => difference(found[key], expected[key], tolerance))
        .find(Boolean) ?? ""
    );
  }
  if (typeof expected !== "number") return found === expected ? "" : `${found} in place of ${expected}`;
  const right = Math.abs(found - expected) <= tolerance * Math.max(1, Math.abs(expected));
  return right ? "" : `${found} in place of ${expected}`;
}

/** JavaScript doesn't tell 0.0 from 0. */
const plain = (text) => text.replace(/(\d)\.0\b/g, "$1");

/** What a case records: `expected`, or the fields that stand for it. */
function recorded(name, c) {
  if (name === "random") return { levels: c.levels };
  if (name === "preprocessing") return { rows: c.rows, seen: c.seen, box: c.box };
  if (c.call === "expected_draws") return { alpha: c.alpha, chosen: c.chosen };
  if (name === "solvers") {
    const weighted = c.solver === "shapley" || c.solver === "ridge";
    return {
      states: c.states,
      ...(weighted ? { weights: c.weights } : {}),
      ...(c.expected ? { expected: c.expected } : {}),
    };
  }
  return c.hexadecimal ?? c.expected;
}

async function judged(name, c, tolerance) {
  let found;
  try {
    found = await ANSWERS[name](c);
  } catch (error) {
    if (!c.error) return String(error.stack);
    const same = error.name === c.error.kind && plain(error.message) === plain(c.error.text);
    return same ? "" : `${error.name}: ${error.message} in place of ${c.error.kind}: ${c.error.text}`;
  }
  if (found === SKIP) return SKIP;
  return c.error ? `no error in place of ${c.error.text}` : difference(found, recorded(name, c), tolerance);
}

const folder = process.argv[2];
const answer = {};
for (const file of fs
  .readdirSync(folder)
  .filter((name) => name.endsWith(".json"))
  .sort()) {
  const name = path.basename(file, ".json");
  const { tolerance, cases } = JSON.parse(fs.readFileSync(path.join(folder, file), "utf8"));
  const wrong = [];
  let skipped = 0;
  for (const [place, c] of cases.entries()) {
    const text = ANSWERS[name] ? await judged(name, c, tolerance) : `unknown file ${file}`;
    if (text === SKIP) skipped += 1;
    else if (text) wrong.push(`case ${place} (${c.call ?? c.rule ?? c.solver ?? ""}): ${text}`);
  }
  answer[name] = { cases: cases.length, skipped, wrong };
}
console.log(JSON.stringify(answer, null, 1));
