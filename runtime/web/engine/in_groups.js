/** Runs a method's loop on so many images at a time that the loop's own arrays fit in the memory with its runs. */

import { heldBy, oneByOne } from "./holding.js";
import { findLoop } from "./loops/index.js";
import { product, stacked } from "./numbers.js";
import { imagesAtOnce, room } from "./planner.js";

/** The maps [N, T, …]; `sizes` says how many rows a graph's run takes beside what is held for some images. */
export async function inGroups(work, memory, sizes) {
  const { bundle, method } = work;
  const loop = findLoop(method.loop);
  const shape = bundle.inside ? bundle.inside.shape.slice(1).filter(Number.isInteger) : work.rows.dims.slice(1);
  const held = heldBy(bundle, method, work.parameters, work.asked.count, 4 * product(shape));
  let groups = [[0, work.count]];
  if (oneByOne(work.parameters)) {
    const graphs = ["forward", method.graph, ...method.beside].map((name) => bundle.graphs[name]).filter(Boolean);
    const aRow = Math.max(...graphs.map((graph) => graph.bytesPerRun + graph.bytesPerRow * work.asked.count));
    groups = imagesAtOnce(work.count, room(memory), held.image, held.call + held.row + aRow);
  }
  const mapsOf = (part) =>
    loop(part.with({ rowsPerRun: (graph, targets) => sizes.rows(graph, memory, targets, held, part.count) }));
  if (groups.length === 1) return mapsOf(work);
  const parts = [];
  const maps = [];
  for (const [first, past] of groups) {
    const part = work.part(first, past);
    maps.push(await mapsOf(part));
    parts.push(part);
  }
  if (!work.answers.known) {
    const scores = [];
    for (const part of parts) scores.push(await part.scores());
    work.answers.tell(stacked(scores));
  }
  return stacked(maps);
}
