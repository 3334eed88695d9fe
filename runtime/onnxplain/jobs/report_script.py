"""The script of a job's report: sorts, filters and pages the results; all text is set as text, never as HTML."""

SCRIPT = r"""
'use strict';
const job = JSON.parse(document.getElementById('job').textContent);
const one = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const clean = value => String(value).replace(/[\p{Cc}\p{Cs}]/gu, '\ufffd');
function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties))
    if (name in made) made[name] = value; else made.setAttribute(name, value);
  made.append(...children.filter(child => child !== null && child !== undefined && child !== ''));
  return made;
}

// The columns of all parts; what a part lacks is null.
const parts = self.results || [], sheets = new Map(), column = {};
for (const part of parts) for (const [shard, sheet] of Object.entries(part.sheets)) sheets.set(+shard, sheet);
for (const name of new Set(parts.flatMap(part => Object.keys(part.columns))))
  column[name] = parts.flatMap(part => part.columns[name] || Array(part.count).fill(null));
const count = parts.reduce((sum, part) => sum + part.count, 0);
const results = [...Array(count).keys()];
const places = new Map(results.map(i => [String(column.number[i]), i]));
for (const name of ['label', 'overlays']) column[name] ||= Array(count).fill(null);
document.getElementById('missing').hidden = count === job.shown;

// What can be sorted by: the numbers that differ.
const NOT = new Set(['number', 'name', 'row', 'shard', 'overlays', 'predicted', 'target', 'label', 'probability']);
const SHARES = new Set(['probability', 'target_probability', 'positive']);
const parted = key => [key.slice(0, Math.max(0, key.lastIndexOf('.'))), key.slice(key.lastIndexOf('.') + 1)];
const isShare = key => SHARES.has(parted(key)[1]);
function title(key) {
  const [method, name] = parted(key);
  return (method && job.methods.length > 1 ? method + ': ' : '') + (job.meanings[name] || [name])[0];
}
const differs = values => new Set(values.filter(value => typeof value === 'number')).size > 1;
if (results.every(i => column.target_probability[i] === column.probability[i])) NOT.add('target_probability');
const measured = Object.keys(column)
  .filter(key => !NOT.has(key) && parted(key)[1] !== 'scale' && differs(column[key]));
const sortable = ['number', 'name', 'probability', ...measured];

const plain = new Intl.NumberFormat('en', {maximumSignificantDigits: 4});
const whole = value => value.toLocaleString('en');
function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 0.1) return '< 0.1 %';
  if (value > 99.9 && value < 100) return '> 99.9 %';
  return value.toFixed((value > 0 && value < 10) || (value > 99 && value < 100) ? 1 : 0) + ' %';
}
function shown(key, value) {
  if (value === null || value === undefined) return 'none';
  if (Array.isArray(value)) return value.map(percent).join(' down, ') + ' across';
  if (isShare(key)) return parted(key)[0] ? plain.format(100 * value) + ' %' : percent(value);
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e15) return whole(value);
  return size < 1e-3 || size >= 1e6 ? value.toExponential(3) : plain.format(value);
}

// Class names that are given to several classes get their numbers.
const times = new Map();
for (const name of Object.values(job.classes)) times.set(name, (times.get(name) || 0) + 1);
const className = number => {
  const name = job.classes[number] ?? String(number);
  return clean(times.get(name) > 1 ? name + ' (' + number + ')' : name);
};
const verdict = i => column.label[i] === null ? 'unknown' : column.label[i] === column.predicted[i] ? 'right' : 'wrong';
const VERDICTS = {right: '✓ right', wrong: '✗ wrong', unknown: '? not known'};
let prefix = count ? column.name[0] : '';
for (const name of column.name || [])
  while (!name.startsWith(prefix)) prefix = prefix.replace(/[^/\\]*[/\\]?$/, '');
prefix = prefix.replace(/[^/\\]*$/, '');
const short = i => clean(column.name[i].slice(prefix.length) || column.name[i]);

// The state of the page: what its address holds after the #.
const DEFAULTS = {sort: 'number', order: 'up', text: '', verdict: '', least: '', most: '', of: measured[0] || '',
  from: '', to: '', predicted: '', true: '', page: '1', open: ''};
const form = one('form');
let state = {...DEFAULTS}, written = '', order = [], sorted = null;
function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  state = {...DEFAULTS};
  for (const name of Object.keys(DEFAULTS)) if (given.has(name)) state[name] = given.get(name);
  if (!sortable.includes(state.sort)) state.sort = 'number';
  if (!measured.includes(state.of)) state.of = DEFAULTS.of;
}
function save(push) {
  const changed = Object.entries(state).filter(([name, value]) => value !== DEFAULTS[name]);
  written = new URLSearchParams(changed).toString() || 'all'; // an empty one would scroll to the top
  if (push) location.hash = written; else location.replace('#' + written);
}
function update(change, push = false) {
  Object.assign(state, change);
  if (!('page' in change) && !('open' in change)) state.page = '1';
  save(push);
  render();
}
addEventListener('hashchange', () => {
  if (location.hash.slice(1) === written) return;
  written = location.hash.slice(1);
  read();
  fill();
  render();
});

// Filters: a test for each that is set.
const number = value => value.trim() === '' || Number.isNaN(+value) ? null : +value;
function between(key, from, to) {
  const unit = isShare(key) ? 100 : 1, least = number(from), most = number(to), values = column[key];
  if (least === null && most === null || !values) return null;
  const fits = value => (least === null || value >= least) && (most === null || value <= most);
  return i => values[i] !== null && fits(values[i] * unit);
}
function tests() {
  const text = state.text.trim().toLowerCase();
  const found = {
    text: text && (i => column.name[i].toLowerCase().includes(text)),
    verdict: state.verdict && (i => verdict(i) === state.verdict),
    probability: between('probability', state.least, state.most),
    range: between(state.of, state.from, state.to),
    predicted: state.predicted && (i => String(column.predicted[i]) === state.predicted),
    true: state.true && (i => String(column.label[i]) === state.true),
  };
  return Object.entries(found).filter(([, test]) => test);
}
function matching(active, except) {
  const used = active.filter(([name]) => name !== except).map(([, test]) => test);
  return results.filter(i => used.every(test => test(i)));
}
function sort(found) {
  const values = column[state.sort], sign = state.order === 'down' ? -1 : 1;
  const compare = state.sort === 'name' ? new Intl.Collator('en', {numeric: true}).compare : (a, b) => a - b;
  return found.sort((i, j) => {
    if (values[i] === null || values[j] === null) return (values[i] === null) - (values[j] === null) || i - j;
    return sign * compare(values[i], values[j]) || i - j;
  });
}

// Lists of classes, with how many results each would leave.
function options(select, choices) {
  const key = JSON.stringify(choices);
  if (select.dataset.key !== key)
    select.replaceChildren(...choices.map(([value, text]) => make('option', {value, textContent: text})));
  select.dataset.key = key;
  select.value = state[select.name];
}
function pick(name, values, active) {
  const select = form.elements[name], wanted = one('input', select.parentNode).value.trim().toLowerCase();
  const counts = new Map(state[name] ? [[state[name], 0]] : []);
  for (const i of matching(active, name))
    if (values[i] !== null) counts.set(String(values[i]), (counts.get(String(values[i])) || 0) + 1);
  const choices = [...counts].map(([value, times]) => [value, className(value), times])
    .filter(([value, label]) => value === state[name] || label.toLowerCase().includes(wanted))
    .sort((a, b) => b[2] - a[2] || (a[1] < b[1] ? -1 : 1));
  const lines = choices.map(([value, label, times]) => [value, whole(times) + ' · ' + label]);
  options(select, [['', 'any class'], ...lines]);
}
function fill() {
  for (const control of form.elements) if (control.name in state) control.value = state[control.name];
}
form.addEventListener('submit', event => event.preventDefault());
form.addEventListener('input', event => {
  if (!event.target.name) return lists(tests());
  update({[event.target.name]: event.target.value});
});
document.getElementById('clear').addEventListener('click', () => {
  for (const input of all('.pick input')) input.value = '';
  update({...DEFAULTS, sort: state.sort, order: state.order, of: state.of}, true);
  fill();
  form.elements.text.focus();
});
function lists(active) {
  pick('predicted', column.predicted, active);
  pick('true', column.label, active);
  const counts = {right: 0, wrong: 0, unknown: 0};
  for (const i of matching(active, 'verdict')) counts[verdict(i)]++;
  options(form.elements.verdict, [['', 'any'],
    ...Object.keys(counts).map(name => [name, VERDICTS[name] + ' · ' + whole(counts[name])])]);
}

function histogram() {
  const values = order.map(i => column[state.sort][i]).filter(value => typeof value === 'number').sort((a, b) => a - b);
  const box = one('.histogram'), least = values[0], most = values[values.length - 1], bins = Array(40).fill(0);
  box.hidden = ['number', 'name'].includes(state.sort) || !(most > least);
  if (box.hidden) return;
  for (const value of values) bins[Math.min(39, Math.floor(40 * (value - least) / (most - least)))]++;
  const highest = Math.max(...bins), said = value => shown(state.sort, value);
  one('figcaption', box).textContent = 'How ' + title(state.sort) + ' is spread';
  one('.bars', box).replaceChildren(...bins.map(bin => {
    const made = make('i');
    made.style.height = bin && Math.max(2, 100 * bin / highest) + '%';
    return made;
  }));
  one('p', box).textContent = `${said(least)} to ${said(most)}, half of them below ${said(values[values.length >> 1])}`;
}

// Pictures: parts of a shard's sheets.
const shardFolder = i => job.folder + '/' + String(column.shard[i]).padStart(8, '0');
const has = (bits, bit) => Math.floor(bits / 2 ** bit) % 2 === 1;
function thumb(i, sheet, label) {
  const [pictures, there] = sheets.get(column.shard[i]);
  if (!has(there, sheet)) return null;
  const across = Math.min(job.columns, pictures), down = Math.ceil(pictures / job.columns), place = column.row[i];
  const made = make('span', {className: 'thumb', role: 'img', 'aria-label': label}), {style} = made;
  const name = sheet ? 'thumbnails.' + job.methods[sheet - 1] + '.jpg' : 'thumbnails.jpg';
  style.backgroundImage = `url("${shardFolder(i)}/${encodeURIComponent(name)}")`;
  style.backgroundSize = `${100 * across}% ${100 * down}%`;
  const x = place % job.columns / Math.max(1, across - 1), y = Math.floor(place / job.columns) / Math.max(1, down - 1);
  style.backgroundPosition = `${100 * x}% ${100 * y}%`;
  return made;
}
function says(i) {
  const share = column.probability[i], bar = make('i'), mark = verdict(i), box = make('span', {className: 'says'});
  bar.style.width = 100 * share + '%';
  box.append(
    make('span', {className: 'class'}, make('bdi', {textContent: className(column.predicted[i])}),
      make('span', {className: 'share', textContent: percent(share)})),
    make('span', {className: 'track', 'aria-hidden': 'true'}, bar));
  if (mark !== 'unknown') box.append(make('span', {className: 'mark ' + mark}, VERDICTS[mark],
    mark === 'wrong' ? make('bdi', {textContent: ', is ' + className(column.label[i])}) : ''));
  if (column.target[i] !== column.predicted[i]) box.append(make('span', {}, 'explained: ',
    make('bdi', {textContent: className(column.target[i])}), ' ' + percent(column.target_probability[i])));
  if (!['number', 'name', 'probability'].includes(state.sort))
    box.append(make('span', {textContent: title(state.sort) + ' ' + shown(state.sort, column[state.sort][i])}));
  box.append(make('span', {className: 'name'}, make('bdi', {textContent: short(i)})));
  return box;
}
function card(i) {
  const sights = make('span', {className: 'sights'});
  for (const [at, name] of ['picture', ...job.methods].entries()) {
    const made = thumb(i, at, at ? 'map: ' + name : 'picture');
    const caption = job.methods.length > 1 ? make('small', {textContent: name, 'aria-hidden': 'true'}) : '';
    if (made) sights.append(make('span', {className: 'sight', title: name}, made, caption));
  }
  const button = make('button', {type: 'button', className: 'card', 'aria-haspopup': 'dialog'},
    sights.childNodes.length ? sights : '', says(i));
  button.dataset.number = column.number[i];
  button.addEventListener('click', () => update({open: String(column.number[i])}, true));
  return make('li', {}, button);
}

// Pages.
const last = () => Math.max(1, Math.ceil(order.length / job.perPage));
const page = () => Math.min(last(), Math.max(1, Math.floor(+state.page) || 1));
for (const [at, nav] of all('.pages').entries()) {
  const turn = (name, text, step) => {
    const made = make('button', {type: 'button', className: name, textContent: text});
    made.addEventListener('click', () => {
      update({page: String(page() + step)}, true);
      if (at) one('.bar').scrollIntoView();
      const here = all('.pages')[0];
      if (at || made.disabled) (all(`.${name}:enabled`, here)[0] || one('input', here)).focus({preventScroll: true});
    });
    return made;
  };
  const input = make('input', {type: 'number', min: 1});
  input.addEventListener('change', () => update({page: input.value}, true));
  const label = make('label', {}, 'page ', input);
  nav.append(turn('before', '← Previous', -1), label, make('span'), turn('after', 'Next →', 1));
}

// The larger view of one result.
const dialog = one('dialog');
function detail(i) {
  const at = order.indexOf(i);
  const go = (text, label, to) => {
    const made = make('button', {type: 'button', textContent: text, 'aria-label': label, disabled: to === undefined});
    made.addEventListener('click', () => step(to));
    return made;
  };
  const close = make('button', {type: 'button', textContent: 'Close', autofocus: true});
  close.addEventListener('click', () => dialog.close());
  const before = at < 0 ? undefined : order[at - 1], after = at < 0 ? undefined : order[at + 1];
  const sights = make('div', {className: 'sights'});
  for (const [place, name] of ['picture', ...job.methods].entries()) {
    const picture = thumb(i, place, place ? 'map: ' + name : 'picture');
    const drawn = place && has(column.overlays[i] || 0, place - 1);
    const png = encodeURIComponent(String(column.number[i]).padStart(8, '0') + `.${name}.png`);
    const href = `${shardFolder(i)}/${job.overlays}/${png}`;
    const link = drawn ? make('a', {href, target: '_blank', textContent: 'overlay as PNG'}) : '';
    if (picture || link)
      sights.append(make('figure', {className: 'sight'}, picture, make('figcaption', {}, name + ' ', link)));
  }
  const row = (name, ...cells) => make('tr', {}, make('th', {scope: 'row', textContent: name}),
    ...cells.map(text => make('td', {}, make('bdi', {textContent: text}))));
  const known = column.label[i] === null ? 'not known' : className(column.label[i]);
  const body = make('tbody', {},
    row('predicted', `${className(column.predicted[i])}, ${percent(column.probability[i])}`),
    row('true class', known + (verdict(i) === 'unknown' ? '' : ' — ' + VERDICTS[verdict(i)])),
    row('explained class', `${className(column.target[i])}, ${percent(column.target_probability[i])}, ` +
      `score ${shown('', column.target_score[i])}`));
  const names = new Set(Object.keys(column).map(parted).filter(([method]) => method).map(([, name]) => name));
  names.delete('scale');
  const numbers = make('tbody', {}, ...[...names].map(name => row((job.meanings[name] || [name])[0],
    ...job.methods.map(method => shown(`${method}.${name}`, column[`${method}.${name}`]?.[i])))));
  const packed = job.parquet, file = method => `${shardFolder(i)}/${packed || job.maps[method].file}`;
  const stored = job.methods.filter(method => packed || (job.maps[method].file || '').endsWith('.npy'));
  if (stored.length)
    numbers.append(row('file', ...job.methods.map(method => stored.includes(method) ? file(method) : 'none')),
      row('row of the file', ...job.methods.map(() => packed ? `number ${column.number[i]}` : String(column.row[i]))));
  const lines = stored.map(method => {
    const scale = column[method + '.scale']?.[i], scaled = scale ? `.astype("float32") * ${scale}` : '';
    const name = method.replace(/\W/g, '_');
    if (packed) return `${name} = row[${JSON.stringify(method)}].reshape(${job.maps[method].shape?.join(', ') ?? -1})`;
    return `${name} = np.load(${JSON.stringify(file(method))}, mmap_mode="r")[${column.row[i]}]${scaled}`;
  });
  const head = packed ? ['import pandas as pd', `row = pd.read_parquet(${JSON.stringify(file(''))}, ` +
    `filters=[("number", "==", ${column.number[i]})]).iloc[0]`] : ['import numpy as np'];
  const heads = ['map', ...job.methods].map(name => make('th', {scope: 'col', textContent: name}));
  dialog.replaceChildren(
    make('div', {className: 'head'}, make('h2', {id: 'which'}, make('bdi', {textContent: clean(column.name[i])}),
      make('small', {textContent: ` picture ${column.number[i]} of the job`})),
      make('div', {className: 'pages'}, go('←', 'Previous result', before), go('→', 'Next result', after), close)),
    sights.childNodes.length ? sights : '',
    make('div', {className: 'table'}, make('table', {}, body)),
    make('div', {className: 'table', tabIndex: 0},
      make('table', {}, make('thead', {}, make('tr', {}, ...heads)), numbers)),
    ...(lines.length ? [make('p', {className: 'note'}, 'In Python, in the folder of this page:'),
      make('pre', {tabIndex: 0, textContent: [...head, ...lines].join('\n')})] : []));
  if (!dialog.open) dialog.showModal();
}
function step(to) {
  if (to === undefined) return;
  const label = document.activeElement.getAttribute('aria-label');
  update({open: String(column.number[to]), page: String(Math.floor(order.indexOf(to) / job.perPage) + 1)});
  const same = all('button:enabled', dialog).find(button => button.getAttribute('aria-label') === label);
  (same || one('.pages button:last-child', dialog)).focus();
}
dialog.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('[tabindex]')) return;
  const at = order.indexOf(places.get(state.open));
  if (at >= 0 && event.key === 'ArrowLeft') step(order[at - 1]);
  if (at >= 0 && event.key === 'ArrowRight') step(order[at + 1]);
});
dialog.addEventListener('click', event => event.target === dialog && dialog.close());
dialog.addEventListener('close', () => {
  const left = state.open;
  if (left) update({open: ''});
  one(`[data-number="${CSS.escape(left)}"]`)?.focus();
});

function render() {
  const key = JSON.stringify({...state, page: 0, open: 0});
  if (key !== sorted) {
    const active = tests();
    order = sort(matching(active));
    lists(active);
    histogram();
    document.getElementById('clear').hidden = !active.length;
    sorted = key;
  }
  const first = (page() - 1) * job.perPage, here = order.slice(first, first + job.perPage);
  const pageKey = sorted + page(), cards = one('.cards');
  if (cards.dataset.key !== pageKey) cards.replaceChildren(...here.map(card));
  cards.dataset.key = pageKey;
  one('.count').textContent = order.length
    ? `${whole(order.length)} of ${whole(count)} pictures; here ${whole(first + 1)} to ${whole(first + here.length)}`
    : 'No picture fits these filters';
  for (const nav of all('.browse .pages')) {
    const [before, input, , after] = [...nav.children].map(child => one('input', child) || child);
    nav.hidden = last() === 1;
    input.value = page();
    input.max = last();
    one('span', nav).textContent = `of ${whole(last())}`;
    before.disabled = page() <= 1;
    after.disabled = page() >= last();
  }
  const open = places.get(state.open);
  if (open !== undefined) detail(open); else if (dialog.open) { state.open = ''; dialog.close(); }
}

if (count) {
  one('.cards').style.setProperty('--across', Math.min(4, 1 + job.methods.length));
  for (const hidden of all('.known')) hidden.hidden = !column.label.some(label => label !== null);
  document.getElementById('prefix').textContent = prefix ? 'All names begin with ' + clean(prefix) : '';
  const choice = key => make('option', {value: key, textContent: title(key) + (isShare(key) ? ' (%)' : '')});
  form.elements.sort.append(...sortable.map(choice));
  form.elements.of.append(...measured.map(choice));
  written = location.hash.slice(1);
  read();
  one('.browse').hidden = false;
  if (matchMedia('(max-width: 40rem)').matches) one('.panel').open = false;
  render();
  fill();
}
"""
"""All of it."""
