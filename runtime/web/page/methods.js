/** The methods of a network as a menu, a list to tick, and a form for the settings of one. */

const FAMILIES = [
  ["Gradients", ({ graph }) => /^(gradient|noise|path)$/.test(graph)],
  ["Hiding parts of the picture", ({ graph }) => graph.startsWith("masked")],
  ["Activations of a layer", ({ graph }) => graph.startsWith("layer")],
  ["Other rules", () => true],
];
const FILLS = ["black", "white", "mean", "blur"];

/** The methods that run as they are, [family, methods], in the bundle's order. */
export function families({ methods, runs }) {
  const found = new Map(FAMILIES.map(([name]) => [name, []]));
  for (const name of runs) found.get(FAMILIES.find(([, fits]) => fits(methods[name]))[0]).push(methods[name]);
  return [...found].filter(([, members]) => members.length);
}

/** A method's name in words. */
export const words = (name) => name.replaceAll("_", " ");

/** Fills a menu with the methods of a network. */
export function fillMenu(menu, bundle, chosen) {
  menu.replaceChildren(
    ...families(bundle).map(([family, members]) => {
      const group = document.createElement("optgroup");
      group.label = family;
      group.append(...members.map(({ name }) => new Option(words(name), name, false, name === chosen)));
      return group;
    }),
  );
}

/** A list of the methods to tick, each with what it shows. */
export function tickList(bundles, ticked, changed) {
  const all = bundles.reduce((methods, each) => ({ ...methods, ...each.methods }), {});
  const runs = Object.keys(all).filter((name) => bundles.some((bundle) => bundle.runs.includes(name)));
  return families({ methods: all, runs }).map(([family, members]) => {
    const group = document.createElement("div");
    group.className = "family";
    const title = document.createElement("h3");
    title.textContent = family;
    group.append(title, ...members.map(({ name, about }) => tick(name, about, ticked.has(name), changed)));
    return group;
  });
}

function tick(name, about, checked, changed) {
  const label = document.createElement("label");
  label.title = about;
  const box = Object.assign(document.createElement("input"), { type: "checkbox", value: name, checked });
  box.addEventListener("change", () => changed(name, box.checked));
  const text = document.createElement("span");
  text.textContent = words(name);
  label.append(box, text);
  return label;
}

/** The fields of a method's parameters; `changed(name, value)` with undefined for the default. */
export function parameterFields(method, layers, given, changed) {
  return Object.values(method.parameters)
    .filter((parameter) => parameter.kind !== "array")
    .map((parameter) => field(parameter, layers, given[parameter.name], (value) => changed(parameter.name, value)));
}

function field(parameter, layers, value, changed) {
  const label = document.createElement("label");
  const name = document.createElement("span");
  name.textContent = words(parameter.name);
  const input = controlOf(parameter, layers);
  input.name = parameter.name;
  const help = document.createElement("small");
  Object.assign(help, { id: `help-${parameter.name}`, textContent: helpOf(parameter) });
  input.setAttribute("aria-describedby", help.id);
  if (input.type === "checkbox") input.checked = value ?? parameter.default;
  else input.value = value ?? shownDefault(parameter, layers);
  input.addEventListener("change", () => changed(readValue(parameter, input)));
  label.append(name, input, help);
  return label;
}

function controlOf({ name, kind, choices }, layers) {
  if (kind === "bool") return Object.assign(document.createElement("input"), { type: "checkbox" });
  if (kind === "choice" || kind === "layer") {
    const menu = document.createElement("select");
    const names = kind === "layer" ? layers.map((layer) => layer.name) : choices;
    menu.append(...names.map((each) => new Option(each, each)));
    return menu;
  }
  const input = document.createElement("input");
  Object.assign(input, { type: "text", autocomplete: "off", spellcheck: false });
  if (kind !== "image") {
    input.inputMode = kind === "float" ? "decimal" : "numeric";
    return input;
  }
  const list = Object.assign(document.createElement("datalist"), { id: `names-${name}` });
  list.append(...(choices.length ? choices : FILLS).map((each) => new Option(each)));
  input.append(list);
  input.setAttribute("list", list.id);
  return input;
}

function shownDefault(parameter, layers) {
  if (parameter.kind === "layer" && !parameter.default) return layers.find((layer) => layer.default)?.name ?? "";
  return Array.isArray(parameter.default) ? parameter.default.join(", ") : String(parameter.default ?? "");
}

function helpOf({ help, minimum, maximum, kind }) {
  if (minimum === null && maximum === null) return help;
  const number = (bound) => bound.toLocaleString("en", { maximumFractionDigits: 4 });
  const range = maximum === null ? `at least ${number(minimum)}` : `${number(minimum ?? 0)} to ${number(maximum)}`;
  return kind === "bool" ? help : `${help} (${range})`;
}

/** What a field says, as the engine takes it; what is no number is handed on, for the engine to refuse. */
function readValue({ kind, choices }, input) {
  if (kind === "bool") return input.checked;
  const text = input.value.trim();
  if (text === "") return undefined;
  if (kind === "choice" || kind === "layer" || choices.includes(text)) return text;
  if (kind === "size" && /^\d+\D+\d+$/.test(text)) return text.split(/\D+/).map(Number);
  const number = Number(kind === "float" || kind === "image" ? text.replace(",", ".") : text);
  return Number.isNaN(number) ? text : number;
}
