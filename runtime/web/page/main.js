/** The page: what is chosen, and what happens when that changes. */

import { element, fillChoices } from "./choices.js";
import { Comparison } from "./compare.js";
import { paintScale } from "./drawing.js";
import { droppedFiles, listedFiles, sorted } from "./files.js";
import { OneMap, clearErrors, showError } from "./one.js";
import { ownPicture, shippedPictures } from "./pictures.js";
import { Studio } from "./studio.js";

const find = (id) => document.getElementById(id);
const address = (name) => String(new URL(`../networks/${name}/`, import.meta.url));
const NETWORKS = [
  { key: "shortcut", name: "shortcut", about: "learned where the sky gave the answer away" },
  { key: "honest", name: "honest", about: "learned without that hint" },
].map((network) => ({ ...network, source: { address: address(network.key) } }));
// What is shown first, and the files that it takes.
const FIRST = {
  network: "shortcut", picture: "08_eight", method: "smoothgrad",
  files: ["explainer.json", "weights.data", "forward.onnx", "noise.onnx"],
};
const COMPARED = ["gradient", "smoothgrad", "gradcam", "occlusion"];
const SCALES = { overlay: ["little", "strong"], map: ["little", "strong"], signed: ["against", "for"] };

const networks = [...NETWORKS];
const pictures = shippedPictures();
const settings = new Map();
const state = {
  mode: "one",
  network: networks.find(({ key }) => key === FIRST.network),
  picture: pictures.find(({ key }) => key === FIRST.picture),
  method: FIRST.method,
  target: null,
  look: { view: "overlay", strength: 0.85 },
  tickedNetworks: [...networks],
  tickedPictures: pictures.filter(({ key }) => key === FIRST.picture),
  tickedMethods: new Set(COMPARED),
  /** The settings of a method that differ from its defaults. */
  given(method) {
    if (!settings.has(method)) settings.set(method, {});
    return settings.get(method);
  },
};
const studio = new Studio(FIRST.files.map((file) => `${address(FIRST.network)}${file}`));
const one = new OneMap(state, studio);
const comparison = new Comparison(state, studio, showLarge);
const parts = { one, compare: comparison };

function refresh() {
  for (const [mode, part] of Object.entries(parts)) if (mode !== state.mode) part.cancel();
  parts[state.mode].show().then(() => {
    const { onnxplain, onnxruntime } = studio.versions ?? {};
    if (onnxplain) find("versions").textContent = ` ${onnxplain} and ONNX Runtime ${onnxruntime}`;
  });
}

function listSources() {
  const comparing = state.mode === "compare";
  const type = comparing ? "checkbox" : "radio";
  fillChoices(find("networks"), networks, {
    type,
    name: "network",
    isChosen: (network) => (comparing ? state.tickedNetworks.includes(network) : network === state.network),
    show: ({ name, about }) => [element("span", "option", element("b", "", name), element("small", "", about))],
    changed: (network, on) => chosen("network", "tickedNetworks", networks, network, on),
  });
  fillChoices(find("pictures"), pictures, {
    type,
    name: "picture",
    describe: ({ name }) => name,
    isChosen: (picture) => (comparing ? state.tickedPictures.includes(picture) : picture === state.picture),
    show: ({ name, shown }) => [Object.assign(new Image(), { src: shown, alt: "", title: name })],
    changed: (picture, on) => chosen("picture", "tickedPictures", pictures, picture, on),
  });
  // On a phone the pictures are one line: the chosen one is brought to its middle.
  const [box, shown] = [find("pictures"), document.querySelector("#pictures :checked")?.parentElement];
  if (shown) box.scrollLeft = shown.offsetLeft - (box.clientWidth - shown.offsetWidth) / 2;
}

function chosen(one, ticked, all, entry, on) {
  if (state.mode === "compare") {
    state[ticked] = all.filter((each) => (each === entry ? on : state[ticked].includes(each)));
  } else {
    state[one] = entry;
    forgetClass();
  }
  refresh();
}

/** Another picture or network has another top class, which is explained unless one is chosen. */
function forgetClass() {
  state.target = null;
  find("class-search").value = "";
}

/** Shows a map of the comparison large. */
function showLarge(network, picture, method) {
  Object.assign(state, { network, picture, method });
  forgetClass();
  setMode("one");
  find("one").scrollIntoView({ block: "nearest" });
  document.querySelector("[name=mode][value=one]").focus({ preventScroll: true });
}

function setMode(mode) {
  state.mode = mode;
  document.querySelector(`[name=mode][value=${mode}]`).checked = true;
  find("one").hidden = mode !== "one";
  find("compare").hidden = mode !== "compare";
  listSources();
  refresh();
}

function setView(view) {
  state.look = { ...state.look, view };
  find("strength").classList.toggle("unused", view === "map");
  const [low, scale, high] = find("legend").children;
  [low.textContent, high.textContent] = SCALES[view];
  paintScale(scale, view);
  parts[state.mode].redraw();
}

/** Takes in what was dropped, pasted or picked. */
async function takeIn(files) {
  const { pictures: given, networks: bundles } = sorted(files);
  clearErrors(["network-error", "picture-error"]);
  const taken = given.map(ownPicture);
  if (taken.length) {
    pictures.push(...taken);
    state.picture = taken.at(-1);
    state.tickedPictures = state.mode === "compare" ? [...state.tickedPictures, ...taken] : taken;
  }
  let opened = null;
  for (const bundle of bundles) opened = (await takeNetwork(bundle)) ?? opened;
  if (!taken.length && !opened) return;
  forgetClass();
  listSources();
  refresh();
}

/** Opens a network and lists it; one that can't be opened leaves everything as it was, and its error. */
async function takeNetwork({ name, files }) {
  const network = { key: `own ${networks.length}`, name, about: "yours", source: { files } };
  try {
    const bundle = await studio.opened(network);
    network.name = bundle.name || name;
  } catch (error) {
    showError("network-error", error.message);
    return null;
  }
  networks.push(network);
  state.network = network;
  if (state.mode === "compare") state.tickedNetworks.push(network);
  else state.tickedNetworks = [network];
  return network;
}

function listen() {
  for (const [name, set] of [["mode", setMode], ["view", setView]]) {
    find(name).addEventListener("change", ({ target }) => set(target.value));
  }
  find("strength").lastElementChild.addEventListener("input", ({ target }) => {
    state.look = { ...state.look, strength: target.value / 100 };
    parts[state.mode].redraw();
  });
  for (const id of ["bundle-files", "bundle-folder", "picture-files"]) {
    find(id).addEventListener("change", ({ target }) => {
      takeIn(listedFiles(target.files));
      target.value = "";
    });
  }
  document.addEventListener("paste", ({ clipboardData }) => {
    if (clipboardData?.files.length) takeIn(listedFiles(clipboardData.files));
  });
  find("provider").querySelector("select").addEventListener("change", ({ target }) => {
    changeProvider(target);
  });
}

function listenToDrops() {
  const curtain = find("drop");
  let depth = 0;
  const holdsFiles = ({ dataTransfer }) => dataTransfer?.types.includes("Files");
  const lower = (change) => {
    depth = Math.max(0, depth + change);
    curtain.hidden = depth === 0;
  };
  document.addEventListener("dragenter", (event) => holdsFiles(event) && lower(1));
  document.addEventListener("dragleave", (event) => holdsFiles(event) && lower(-1));
  document.addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
  document.addEventListener("drop", async (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    lower(-depth);
    takeIn(await droppedFiles(event.dataTransfer));
  });
}

/** Goes over to another execution provider; back to the processor where the browser has no GPU to give. */
async function changeProvider(menu) {
  clearErrors(["tools-error"]);
  if (menu.value === "webgpu" && !(await navigator.gpu.requestAdapter())) {
    showError("tools-error", "This browser has no GPU that WebGPU can use.");
    menu.value = "wasm";
    return;
  }
  studio.use(menu.value);
  refresh();
}

find("stopped").hidden = true;
find("app").hidden = false;
listen();
listenToDrops();
find("provider").hidden = !navigator.gpu;
setView("overlay");
setMode("one");

/** For tests and the curious: what is shown, and the addresses that were asked for. */
window.onnxplainPage = {
  state,
  get result() {
    return one.result;
  },
  get results() {
    return comparison.results;
  },
  requests: async () => [
    ...performance.getEntriesByType("resource").map(({ name, transferSize }) => ({ name, transferSize })),
    ...(await studio.requests()),
  ],
};
