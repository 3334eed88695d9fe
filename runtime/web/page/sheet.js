/** A comparison as one picture to save: maps in rows and columns with their names. */

import { drawnMap, paint } from "./drawing.js";
import { words } from "./methods.js";

const SIDE = 192;
const GAP = 12;
const LEFT = 190;
const HEAD = 40;
const PAPER = "#ffffff";
const INK = "#1d1c1a";
const FONT = "system-ui, sans-serif";

/** Draws the finished cells of a comparison, {network, picture, method, result}, as {data, width, height}. */
export function sheetOf(cells, look) {
  const rows = unique(cells.map(rowOf));
  const columns = unique(cells.map(({ method }) => method));
  const width = LEFT + columns.length * (SIDE + GAP);
  const canvas = new OffscreenCanvas(width, HEAD + rows.length * (SIDE + GAP));
  const context = canvas.getContext("2d");
  context.fillStyle = PAPER;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = INK;
  columns.forEach((method, column) => write(context, words(method), LEFT + column * (SIDE + GAP), 26, SIDE));
  for (const cell of cells) {
    const top = HEAD + rows.indexOf(rowOf(cell)) * (SIDE + GAP);
    const [best] = cell.result.predictions;
    const lines = [cell.picture.name, cell.network.name, ...(best ? [`says ${best.label}`] : [])];
    lines.forEach((line, place) => write(context, line, GAP, top + 20 + 20 * place, LEFT - 2 * GAP));
    drawInto(context, drawnMap(cell.result, look), LEFT + columns.indexOf(cell.method) * (SIDE + GAP), top);
  }
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function drawInto(context, drawn, left, top) {
  const map = new OffscreenCanvas(1, 1);
  paint(map, drawn);
  const scale = SIDE / Math.max(drawn.width, drawn.height);
  context.imageSmoothingEnabled = scale < 1;
  context.drawImage(map, left, top, drawn.width * scale, drawn.height * scale);
}

function write(context, text, left, base, most) {
  context.font = `15px ${FONT}`;
  context.fillText(text, left, base, most);
}

const rowOf = ({ picture, network }) => `${picture.key} ${network.key}`;
const unique = (values) => [...new Set(values)];
