/** Maps side by side: a row for each picture and network, a column for each method. */

import { element, percent } from "./choices.js";
import { drawnMap, paint, pngOf } from "./drawing.js";
import { Cancelled } from "./engine_thread.js";
import { tickList, words } from "./methods.js";
import { clearErrors, showError } from "./one.js";
import { save } from "./saving.js";
import { sheetOf } from "./sheet.js";

const find = (id) => document.getElementById(id);

/** The part of the page that compares. `open(network, picture, method)` shows one of the maps large. */
export class Comparison {
  #state;
  #studio;
  #open;
  #stop = null;
  #cells = [];

  constructor(state, studio, open) {
    [this.#state, this.#studio, this.#open] = [state, studio, open];
    find("compare-cancel").addEventListener("click", () => this.cancel());
    find("compare-save").addEventListener("click", () => this.#save());
  }

  /** Ends what is under way. */
  cancel() {
    this.#stop?.abort();
  }

  /** Makes and shows the maps of all that is ticked. */
  async show() {
    this.cancel();
    const stop = new AbortController();
    this.#stop = stop;
    clearErrors();
    find("compare-cancel").hidden = false;
    find("compare-save").hidden = true;
    try {
      await this.#make(stop.signal);
    } catch (error) {
      if (stop === this.#stop && !(error instanceof Cancelled)) showError("compare-error", error.message);
    } finally {
      if (stop === this.#stop) find("compare-cancel").hidden = true;
    }
  }

  async #make(signal) {
    const networks = this.#state.tickedNetworks;
    say("Opening …");
    const bundles = await Promise.all(networks.map((network) => this.#studio.opened(network)));
    signal.throwIfAborted();
    const ticked = this.#state.tickedMethods;
    find("methods").replaceChildren(
      ...tickList(bundles, ticked, (name, on) => {
        ticked[on ? "add" : "delete"](name);
        this.show();
      }),
    );
    const columns = bundles
      .flatMap(({ runs }) => runs)
      .filter((name, place, all) => ticked.has(name) && all.indexOf(name) === place);
    this.#lay(networks, bundles, columns);
    await this.#fill(signal);
  }

  #lay(networks, bundles, columns) {
    this.#cells = [];
    const head = element("tr", "", heading("col", "Picture"), ...columns.map((name) => heading("col", words(name))));
    const rows = this.#state.tickedPictures.flatMap((picture) =>
      networks.map((network, place) => this.#row(network, bundles[place], picture, columns)),
    );
    const table = element("table", "", element("thead", "", head), element("tbody", "", ...rows));
    find("board").style.setProperty("--columns", String(columns.length || 1));
    find("board").replaceChildren(...(rows.length && columns.length ? [table] : [nothing()]));
  }

  #row(network, bundle, picture, columns) {
    const shown = Object.assign(new Image(), { src: picture.shown, alt: "" });
    const says = element("small", "", network.name);
    const first = heading("row", element("span", "cell", shown), element("span", "name", picture.name), says);
    const cells = columns.map((method) => {
      const cell = element("td");
      if (bundle.runs.includes(method)) this.#cells.push({ cell, network, picture, method, says });
      else cell.append(element("span", "cell none", "not in this network"));
      return cell;
    });
    for (const cell of cells) if (!cell.childNodes.length) cell.append(element("span", "cell waiting"));
    return element("tr", "", first, ...cells);
  }

  async #fill(signal) {
    let done = 0;
    const failures = [];
    for (const place of this.#cells) {
      say(`${done} of ${this.#cells.length} maps`);
      try {
        place.result = await this.#map(place, signal);
        this.#present(place);
      } catch (error) {
        if (error instanceof Cancelled || signal.aborted) {
          if (this.#stop.signal === signal) say(`Cancelled after ${done} of ${this.#cells.length} maps.`);
          throw new Cancelled("cancelled");
        }
        place.cell.replaceChildren(element("span", "cell none", error.message));
        failures.push(place);
      }
      done += 1;
    }
    const made = done - failures.length;
    const failed = failures.length ? `, ${failures.length} failed` : "";
    say(`${made} ${made === 1 ? "map" : "maps"}${failed}. Select one to see it large.`);
    find("compare-save").hidden = !made;
  }

  async #map({ cell, network, picture, method }, signal) {
    const { layout } = (await this.#studio.opened(network)).image;
    const canvas = document.createElement("canvas");
    const seen = (await this.#studio.answer(network, picture))?.seen ?? null;
    signal.throwIfAborted();
    const news = ({ partial }) => {
      if (!partial || signal.aborted || partial.data.every((value) => value === 0)) return;
      if (!canvas.isConnected) cell.replaceChildren(element("span", "cell", canvas));
      paint(canvas, drawnMap({ attribution: partial, layout, seen }, this.#state.look));
    };
    const parameters = { ...this.#state.given(method) };
    const result = await this.#studio.map({ network, picture, method, target: null, parameters }, { signal, news });
    signal.throwIfAborted();
    if (!result.hasPictures) throw new Error("this network's input is no picture, so there is nothing to draw");
    return result;
  }

  #present(place) {
    const { cell, network, picture, method, says, result } = place;
    const [best] = result.predictions;
    if (best) says.textContent = `${network.name} says ${best.label}, ${percent(best.probability)}`;
    place.canvas = document.createElement("canvas");
    paint(place.canvas, drawnMap(result, this.#state.look));
    const button = element("button", "cell", place.canvas);
    button.type = "button";
    button.setAttribute("aria-label", `${words(method)} of ${network.name} for ${picture.name}: show large`);
    button.addEventListener("click", () => this.#open(network, picture, method));
    cell.replaceChildren(button, element("small", "", `${result.seconds.toFixed(2)} s`));
  }

  /** Draws the maps again, after a change of how they are shown. */
  redraw() {
    for (const { canvas, result } of this.#cells) if (canvas) paint(canvas, drawnMap(result, this.#state.look));
  }

  /** The maps that are there, for tests. */
  get results() {
    return this.#cells.flatMap(({ result }) => result ?? []);
  }

  async #save() {
    const made = this.#cells.filter(({ result }) => result);
    save(await pngOf(sheetOf(made, this.#state.look)), "comparison.png");
  }
}

function heading(scope, ...content) {
  const made = element("th", "", ...content);
  made.scope = scope;
  return made;
}

const nothing = () => element("p", "note", "Tick a network, a picture and a method to compare.");

function say(text) {
  find("compare-status").textContent = text;
}
