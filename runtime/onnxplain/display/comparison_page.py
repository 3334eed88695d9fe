"""The frame of a comparison: board, style and script."""

BOARD = """<section>
<div class="bar">
<fieldset class="views" aria-label="What is shown">$views</fieldset>
<div class="scales" aria-hidden="true">
<span class="scale heat">little <i style="background:linear-gradient(90deg, $stops)"></i> strong</span>
<span class="scale sign">against <i style="background:linear-gradient(90deg, $signed_stops)"></i> for</span>
</div>
<label class="size">Size <input type="range" min="5" max="30" step="0.5" value="11"></label>
<details class="help"><summary>How to zoom</summary><p>Pinch, use a row's buttons, or click a row and turn the wheel;
Ctrl and the wheel zoom at once. Drag to move. Keys: <kbd>+</kbd> <kbd>−</kbd> <kbd>0</kbd> zoom the row in focus, the
arrows move it, <kbd>1</kbd>, <kbd>2</kbd>, … switch the view.</p></details>
</div>
<div class="board" tabindex="-1" style="--columns:$columns"><table>
<thead><tr><th scope="col">Picture</th>$heads</tr></thead>
<tbody>
$rows
</tbody></table></div>
</section>"""

COMPARISON_STYLE = """
main, footer { max-width: none; }
.top { padding-bottom: .2rem; }
.bar { position: sticky; top: 0; z-index: 4; display: flex; flex-wrap: wrap; align-items: center; gap: .5rem 1.4rem;
  padding: .6rem 0; background: var(--page); font-size: .86rem; color: var(--quiet); }
.views { display: flex; margin: 0; padding: 2px; border: 1px solid var(--line); border-radius: 10px;
  background: var(--card); }
.views input { position: absolute; opacity: 0; pointer-events: none; }
.views span { display: block; padding: .3rem .8rem; border-radius: 8px; cursor: pointer; }
.views input:checked + span { background: var(--accent); color: var(--page); font-weight: 600; }
.views input:focus-visible + span, .zoom button:focus-visible, summary:focus-visible {
  outline: 2px solid var(--accent); outline-offset: -2px; }
tr.pictures:focus { outline: none; }
tr.pictures:focus > th { box-shadow: 1px 0 0 var(--line), inset 3px 0 0 var(--accent); }
.scale { display: none; align-items: center; gap: .5rem; }
.scale i { width: 7rem; max-width: 25vw; height: .6rem; border-radius: .3rem; border: 1px solid var(--line); }
section:has([value=overlay]:checked) .heat, section:has([value=map]:checked) .heat,
section:has([value=signed]:checked) .sign { display: flex; }
.size { display: flex; align-items: center; gap: .5rem; }
.size input { width: 7rem; accent-color: var(--accent); }
.help summary { cursor: pointer; }
.help p { position: absolute; top: 100%; left: 0; z-index: 5; width: 34rem; max-width: 100%; margin: 0;
  padding: .8rem 1rem;
  background: var(--card); color: var(--ink); border: 1px solid var(--line); border-radius: 10px;
  box-shadow: 0 6px 24px #0003; }
kbd { padding: 0 .3em; border: 1px solid var(--line); border-radius: 4px; font: inherit; }

.board { --first: 10rem; --width: clamp(8rem, calc((100vw - var(--first) - 6rem) / var(--columns) - 1rem), 16rem);
  width: fit-content; max-width: 100%; overflow: auto; max-height: calc(100vh - 3.6rem);
  max-height: calc(100dvh - 3.6rem); background: var(--card); border: 1px solid var(--line); border-radius: 14px; }
table { border-collapse: separate; border-spacing: 0; font-size: .86rem; }
th, td { padding: .5rem .45rem; text-align: left; vertical-align: top; font-weight: 500; }
tbody th, tbody td { border-top: 1px solid var(--line); }
thead th { position: sticky; top: 0; z-index: 2; background: var(--card); overflow-wrap: anywhere;
  box-shadow: 0 1px 0 var(--line); }
th:first-child { position: sticky; left: 0; z-index: 1; background: var(--card); box-shadow: 1px 0 0 var(--line);
  padding-left: .8rem; padding-right: .8rem; }
thead th:first-child { z-index: 3; box-shadow: 1px 1px 0 var(--line); }
tbody tr:first-child > * { border-top: 0; }
.cell { width: var(--width); height: calc(var(--width) / var(--ratio)); overflow: hidden; border-radius: 8px;
  outline: 1px solid var(--line); background: var(--track); touch-action: pan-x pan-y; user-select: none;
  -webkit-user-select: none; }
th .cell { width: var(--first); height: calc(var(--first) / var(--ratio)); }
.layer { width: 100%; height: 100%; transform-origin: 0 0;
  transform: translate(calc(var(--x, 0) * 100%), calc(var(--y, 0) * 100%)) scale(var(--zoom, 1)); }
.layer img { width: 100%; height: 100%; border-radius: 0; }
.view { display: none; height: 100%; }
section:has([value=overlay]:checked) .overlay, section:has([value=map]:checked) .map,
section:has([value=signed]:checked) .signed, section:has([value=picture]:checked) .picture { display: block; }
.view.stand-in { display: block; }
.layer.missing { display: grid; place-items: center; color: var(--quiet); transform: none; }
.layer.missing::after { content: "not known"; }
tr.zoomed .cell { touch-action: none; cursor: grab; }
tr.zoomed .cell:active { cursor: grabbing; }
tr.near img { image-rendering: pixelated; }
.name { margin: .45rem 0 .35rem; width: var(--first); overflow-wrap: anywhere; line-height: 1.35; }
small { display: block; width: var(--width); margin-top: .3rem; line-height: 1.35; overflow-wrap: anywhere;
  font-size: .92em; font-weight: 400; }
.name small { width: auto; }
.none { width: var(--width); height: calc(var(--width) / var(--ratio)); margin: 0; display: grid; place-items: center;
  color: var(--quiet); border: 1px dashed var(--line); border-radius: 8px; }
.zoom { display: flex; align-items: center; gap: .25rem; }
.zoom button { min-width: 2rem; height: 2rem; padding: 0 .4rem; font: inherit; color: var(--ink);
  background: var(--page); border: 1px solid var(--line); border-radius: 8px; cursor: pointer; }
.zoom button:disabled { opacity: .4; cursor: default; }
.zoom output { min-width: 2.6rem; text-align: center; color: var(--quiet); font-variant-numeric: tabular-nums; }
@media (max-width: 40rem) {
  main { padding: 0 .6rem; }
  .bar { gap: .4rem .9rem; padding: .4rem 0; }
  .views span { padding: .3rem .6rem; }
  .size { display: none; }
  .board { --first: 6.5rem; --width: 9rem; max-height: calc(100dvh - 5.2rem); }
  th:first-child { padding-left: .5rem; padding-right: .5rem; }
  .zoom output { display: none; }
}
@media print { .bar { display: none; } .board { max-height: none; overflow: visible; } }
"""

SCRIPT = """
'use strict';
const MOST = 32;
const board = document.querySelector('.board');
const views = [...document.querySelectorAll('.views input')];
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

// A row's picture is stored once, in its first cell, and shown again where a cell is asked for it.
for (const row of document.querySelectorAll('tr.pictures')) {
  const picture = row.querySelector('th img');
  for (const layer of row.querySelectorAll('td .layer')) {
    if (!picture) continue;
    const view = document.createElement('div');
    view.className = 'view picture';
    const copy = picture.cloneNode();
    view.append(copy);
    layer.append(view);
  }
}

// Without a picture the map stands in for its overlay; what else a cell lacks, it says.
function standIn() {
  const view = views.find(input => input.checked).value;
  for (const layer of document.querySelectorAll('td .layer')) {
    const missing = !layer.querySelector('.' + view);
    layer.querySelector('.map').classList.toggle('stand-in', missing && view === 'overlay');
    layer.classList.toggle('missing', missing && view !== 'overlay');
  }
}
for (const input of views) input.addEventListener('change', standIn);
standIn();

// Zoom and place of a row: the left upper corner of the layer, as a share of the cell.
class Row {
  constructor(element) {
    this.element = element;
    this.zoom = 1; this.x = 0; this.y = 0;
    this.fingers = new Map();
    element.tabIndex = 0;
    this.buttons();
    element.addEventListener('wheel', event => this.wheel(event), {passive: false});
    element.addEventListener('keydown', event => this.key(event));
    element.addEventListener('dragstart', event => event.preventDefault());
    for (const cell of element.querySelectorAll('.cell')) {
      // Two fingers are a pinch: the page must not scroll away under them.
      cell.addEventListener('touchstart', event => event.touches.length > 1 && event.preventDefault(),
        {passive: false});
      cell.addEventListener('pointerdown', event => this.down(event, cell));
      cell.addEventListener('pointermove', event => this.move(event, cell));
      for (const end of ['pointerup', 'pointercancel'])
        cell.addEventListener(end, event => this.fingers.delete(event.pointerId));
    }
    this.show();
  }
  buttons() {
    const box = this.element.querySelector('.zoom');
    const name = this.element.querySelector('.name').textContent;
    const add = (sign, what, act) => {
      const button = document.createElement('button');
      button.type = 'button'; button.textContent = sign; button.title = what;
      button.setAttribute('aria-label', what + ': ' + name);
      button.addEventListener('click', act);
      box.append(button);
      return button;
    };
    this.less = add('−', 'Zoom out', () => this.at(0.5, 0.5, this.zoom / 1.5));
    this.output = document.createElement('output');
    box.append(this.output);
    add('+', 'Zoom in', () => this.at(0.5, 0.5, this.zoom * 1.5));
    this.whole = add('⤢', 'Show the whole picture', () => this.at(0.5, 0.5, 1));
  }
  at(x, y, zoom) { // change the zoom and keep the point (x, y) of the cell where it is
    zoom = clamp(zoom, 1, MOST);
    this.x = x - (x - this.x) * zoom / this.zoom;
    this.y = y - (y - this.y) * zoom / this.zoom;
    this.zoom = zoom;
    this.show();
  }
  by(x, y) { this.x += x; this.y += y; this.show(); }
  show() {
    this.x = clamp(this.x, 1 - this.zoom, 0);
    this.y = clamp(this.y, 1 - this.zoom, 0);
    const {style, classList} = this.element;
    style.setProperty('--zoom', this.zoom); style.setProperty('--x', this.x); style.setProperty('--y', this.y);
    classList.toggle('zoomed', this.zoom > 1);
    classList.toggle('near', this.zoom >= 4);
    this.output.textContent = this.zoom.toFixed(1) + '×';
    this.less.disabled = this.whole.disabled = this.zoom <= 1;
  }
  place(event, cell) {
    const box = cell.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }
  wheel(event) {
    const cell = event.target.closest('.cell');
    const asked = event.ctrlKey || this.element.contains(document.activeElement);
    if (!cell || !asked || (!event.ctrlKey && event.deltaY > 0 && this.zoom <= 1)) return;
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    this.at(...this.place(event, cell), this.zoom * Math.exp(-clamp(event.deltaY * lines, -150, 150) / 300));
  }
  down(event, cell) {
    if (event.button) return;
    this.element.focus({preventScroll: true});
    this.fingers.set(event.pointerId, this.place(event, cell));
    if (this.zoom > 1 || this.fingers.size > 1) cell.setPointerCapture(event.pointerId);
  }
  move(event, cell) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return;
    const now = this.place(event, cell);
    this.fingers.set(event.pointerId, now);
    const other = [...this.fingers].find(([id]) => id !== event.pointerId);
    if (!other) return this.zoom > 1 && this.by(now[0] - before[0], now[1] - before[1]);
    const [x, y] = other[1];
    const far = ([a, b]) => Math.hypot(a - x, b - y) || 1e-3;
    this.at((before[0] + x) / 2, (before[1] + y) / 2, this.zoom * far(now) / far(before));
    this.by((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
  }
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = {ArrowLeft: [0.2, 0], ArrowRight: [-0.2, 0], ArrowUp: [0, 0.2], ArrowDown: [0, -0.2]};
    if (event.key === '+' || event.key === '=') this.at(0.5, 0.5, this.zoom * 1.5);
    else if (event.key === '-') this.at(0.5, 0.5, this.zoom / 1.5);
    else if (event.key === '0') this.at(0.5, 0.5, 1);
    else if (steps[event.key] && this.zoom > 1) this.by(...steps[event.key]);
    else return;
    event.preventDefault();
  }
}
for (const row of document.querySelectorAll('tr.pictures')) new Row(row);

document.addEventListener('keydown', event => {
  const input = views[Number(event.key) - 1];
  if (!input || event.ctrlKey || event.metaKey || event.altKey) return;
  input.checked = true;
  standIn();
});
const size = document.querySelector('.size input');
const measured = document.querySelector('td .cell, td .none');
if (measured) size.value = measured.clientWidth / parseFloat(getComputedStyle(document.documentElement).fontSize);
size.addEventListener('input', event => {
  board.style.setProperty('--width', event.target.value + 'rem');
});
"""
