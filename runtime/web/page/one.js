/** One map, large: the picture beside it, the classes, the method and its settings. */

import { chance, element, fillChoices } from "./choices.js";
import { drawnMap, paint, pngOf, strongest } from "./drawing.js";
import { Cancelled } from "./engine_thread.js";
import { fillMenu, parameterFields, words } from "./methods.js";
import { fileName, npyOf, save } from "./saving.js";

const SHOWN = 5;
const SOUGHT = 12;
const find = (id) => document.getElementById(id);

/** The part of the page that shows one map. `state` is the page's; `studio` makes the maps. */
export class OneMap {
  #state;
  #studio;
  #stop = null;
  #bundle = null;
  #predictions = [];
  #seen = null;
  result = null;

  constructor(state, studio) {
    [this.#state, this.#studio] = [state, studio];
    find("method").addEventListener("change", ({ target }) => this.#choose(target.value));
    find("class-search").addEventListener("input", () => this.#listClasses());
    find("parameters").addEventListener("submit", (event) => event.preventDefault());
    find("cancel").addEventListener("click", () => this.cancel());
    find("save-picture").addEventListener("click", () => this.#savePicture());
    find("save-map").addEventListener("click", () => this.#saveMap());
  }

  /** Ends what is under way. */
  cancel() {
    this.#stop?.abort();
  }

  /** Makes and shows the map of what is chosen. */
  async show() {
    this.cancel();
    const stop = new AbortController();
    this.#stop = stop;
    this.result = null;
    this.#busy(true);
    clearErrors();
    try {
      await this.#make(stop.signal);
    } catch (error) {
      if (stop === this.#stop) this.#failed(error);
    } finally {
      if (stop === this.#stop) this.#busy(false);
    }
  }

  async #make(signal) {
    const { network, picture } = this.#state;
    title("");
    say(`Opening ${network.name} …`);
    const bundle = await this.#studio.opened(network);
    if (signal.aborted) throw new Cancelled("cancelled");
    this.#take(bundle);
    const { method, parameters } = this.#settings();
    title(words(method));
    say("Computing …");
    const answer = await this.#studio.answer(network, picture);
    if (signal.aborted) throw new Cancelled("cancelled");
    this.#answered(answer);
    const target = this.#state.target;
    const news = (what) => !signal.aborted && this.#hear(what);
    const result = await this.#studio.map({ network, picture, method, target, parameters }, { signal, news });
    if (signal.aborted) throw new Cancelled("cancelled");
    this.result = result;
    this.#answered(result);
    this.#finished(result);
  }

  /** What a bundle brings: its methods and the settings of the one that is chosen. */
  #take(bundle) {
    const same = bundle === this.#bundle;
    this.#bundle = bundle;
    if (!bundle.runs.includes(this.#state.method)) this.#state.method = bundle.single?.method ?? bundle.runs[0];
    if (same && find("method").value === this.#state.method) return;
    fillMenu(find("method"), bundle, this.#state.method);
    this.#showSettings();
  }

  #choose(method) {
    this.#state.method = method;
    this.#showSettings();
    this.show();
  }

  #showSettings() {
    const { method } = this.#state;
    const entry = this.#bundle.methods[method];
    find("about").textContent = entry.about ? `${entry.about[0].toUpperCase()}${entry.about.slice(1)}.` : "";
    const given = this.#state.given(method);
    const fields = parameterFields(entry, this.#bundle.layers, given, (name, value) => {
      if (value === undefined) delete given[name];
      else given[name] = value;
      this.show();
    });
    find("parameters").replaceChildren(...fields);
    find("settings").hidden = !fields.length;
  }

  #settings() {
    const { method } = this.#state;
    return { method, parameters: { ...this.#state.given(method) } };
  }

  #answered(answer) {
    this.#predictions = answer?.predictions ?? [];
    this.#seen = answer?.seen ?? null;
    this.#listClasses();
    if (this.#seen) paint(find("picture"), this.#seen);
    find("picture").classList.toggle("stale", !this.#seen);
    const [best] = this.#predictions;
    const { picture } = this.#state;
    find("picture-caption").replaceChildren(
      element("b", "", best ? `${this.#state.network.name} says “${best.label}”` : picture.name),
      element("span", "", [...(best ? [picture.name] : []), ...(picture.about ? [picture.about] : [])].join(": ")),
    );
  }

  #listClasses() {
    const predictions = this.#predictions;
    const search = find("class-search");
    search.hidden = predictions.length <= SHOWN;
    const sought = search.value.trim().toLocaleLowerCase();
    const { target } = this.#state;
    const [top] = predictions;
    const isChosen = ({ target: each }) => each === (target ?? top?.target);
    let listed = predictions.slice(0, SHOWN);
    if (sought) listed = predictions.filter(({ label }) => label.toLocaleLowerCase().includes(sought)).slice(0, SOUGHT);
    else if (predictions.length && !listed.some(isChosen)) listed.push(predictions.find(isChosen));
    fillChoices(find("classes"), listed.map((each) => ({ ...each, key: String(each.target) })), {
      type: "radio",
      name: "class",
      isChosen,
      show: ({ label, probability }) => [chance(label, probability)],
      changed: (entry) => {
        this.#state.target = entry.target === top.target ? null : entry.target;
        this.show();
      },
    });
    if (sought && !listed.length) find("classes").append(element("p", "note", "No class of that name."));
  }

  #hear({ share, partial }) {
    if (share !== undefined) progress(share);
    if (!partial) return;
    if (partial.data.every((value) => value === 0)) return;
    this.#draw({ attribution: partial, layout: this.#bundle.image.layout, seen: this.#seen });
  }

  #finished(result) {
    const { label, method, steps, seconds, hasPictures } = result;
    const took = seconds < 10 ? seconds.toFixed(2) : Math.round(seconds);
    title(`${words(method)} for “${label}”`);
    say(`${steps > 1 ? `${steps.toLocaleString("en")} passes in ` : ""}${took} s`);
    if (!hasPictures) throw new Error("this network's input is no picture, so there is nothing to draw");
    this.#draw(result);
    find("map").setAttribute("aria-label", `The map: strongest at the ${strongest(result)} of the picture`);
    for (const id of ["save-picture", "save-map"]) find(id).disabled = false;
  }

  /** Draws the map again, after a change of how it is shown. */
  redraw() {
    if (this.result?.hasPictures) this.#draw(this.result);
  }

  #draw(result) {
    paint(find("map"), drawnMap(result, this.#state.look));
    find("map").classList.remove("stale");
  }

  #busy(busy) {
    if (!busy && document.activeElement === find("cancel")) find("method").focus();
    find("running").classList.toggle("idle", !busy);
    progress(busy ? 0 : this.result ? 1 : 0);
    if (!busy) return;
    for (const id of ["map", "picture"]) find(id).classList.add("stale");
    for (const id of ["save-picture", "save-map"]) find(id).disabled = true;
  }

  #failed(error) {
    if (error instanceof Cancelled) {
      say("Cancelled.");
      return;
    }
    say("No map.");
    const place = { BundleError: "network-error", ParameterError: "method-error", PictureError: "picture-error" };
    showError(place[error.name] ?? "map-error", error.message);
    // The engine's words for a wrong setting begin with its name.
    const wrong = /^(?:unknown )?(\w+)/.exec(error.message)?.[1];
    if (error.name === "ParameterError") find("parameters").elements[wrong]?.setAttribute("aria-invalid", "true");
  }

  async #savePicture() {
    const { result } = this;
    const { look } = this.#state;
    const onOriginal = look.view === "overlay" && result.seen;
    const drawn = onOriginal ? await this.#studio.onOriginal(result, look.strength) : drawnMap(result, look);
    save(await pngOf(drawn), this.#name(result, ".png"));
  }

  #saveMap() {
    const { attribution } = this.result;
    save(npyOf({ data: attribution.data, dims: attribution.dims.slice(1) }), this.#name(this.result, ".npy"));
  }

  #name({ picture, network, method, label }, ending) {
    return fileName([picture.name, network.name, method, label], ending);
  }
}

/** Shows an error where it belongs, in the words it came with. */
export function showError(id, message) {
  const place = find(id);
  place.textContent = message;
  place.hidden = false;
}

/** Takes all errors away, or those of some places. */
export function clearErrors(ids = ["network-error", "picture-error", "map-error", "method-error", "compare-error"]) {
  for (const id of ids) find(id).hidden = true;
  for (const field of find("parameters").elements) field.removeAttribute("aria-invalid");
}

function title(text) {
  find("map-title").textContent = text || "…";
}

function say(text) {
  if (find("status").textContent !== text) find("status").textContent = text;
}

function progress(share) {
  const bar = find("progress");
  bar.setAttribute("aria-valuenow", String(Math.round(100 * share)));
  bar.firstElementChild.style.setProperty("--share", String(share));
}
