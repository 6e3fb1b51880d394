// Generate: pictures of a class from several seeds, side by side, each as it comes to be.

import { h } from "../dom.js";
import { Advanced } from "../advanced.js";
import { ClassChooser } from "../choosers.js";
import { Segments, Slider } from "../fields.js";
import { Go } from "../go.js";
import { all, making } from "../making.js";
import { draw, screened } from "../pictures.js";
import { Results } from "../results.js";
import { Screen } from "./screen.js";

const MOST = 9;

/** One seed: its picture, where it stands, and what can be done with it. */
class Tile {
  constructor(studio, seed) {
    this.studio = studio;
    this.seed = seed;
    this.entry = null;
    this.canvas = screened(`Picture of seed ${seed}`);
    this.progress = h("progress", { max: 1, value: 0, "aria-label": `Progress of seed ${seed}` });
    this.status = h("span", { class: "field-value" }, "Waiting…");
    this.results = new Results({
      link: studio.link,
      present: () => this.entry,
      notify: (text) => studio.notify(text),
      small: true,
    });
    this.use = h(
      "button",
      { type: "button", class: "quiet", disabled: true, onclick: () => this.#use() },
      "Work on it",
    );
    this.element = h(
      "figure",
      { class: "tile" },
      this.canvas,
      this.progress,
      h("figcaption", { class: "tile-caption" }, h("span", {}, `Seed ${seed}`), this.status),
      h("div", { class: "tile-actions" }, this.use, this.results.element),
    );
  }

  async make(task) {
    const { studio } = this;
    this.order = making(
      studio.link,
      studio.model,
      { ...task, seed: this.seed },
      {
        onqueued: ({ position }) => (this.status.textContent = position ? `${position} ahead` : "Waiting…"),
        onframe: async ({ step, steps, blob }) => {
          this.progress.value = step / steps;
          this.status.textContent = `Step ${step} of ${steps}`;
          const bitmap = blob && (await createImageBitmap(blob));
          if (bitmap && !this.entry) draw(this.canvas, bitmap);
        },
      },
    );
    try {
      this.entry = await this.order;
      draw(this.canvas, this.entry.bitmap);
      this.status.textContent = told(this.entry);
      this.use.disabled = false;
      this.results.refresh();
    } catch (failure) {
      this.status.textContent = failure.cancelled ? "Stopped" : "Failed";
      throw failure;
    } finally {
      this.progress.classList.add("over");
    }
  }

  #use() {
    this.studio.pictures.push(this.entry);
    location.hash = "#paint";
  }
}

/** How sure the classifier is, and how far that is from the start. */
function told({ report, inside: { ball } }) {
  const sure = `${Math.round(100 * report.pictures[0].probability_after)} %`;
  return ball ? `${sure} · L2 ${ball[0].toFixed(1)} of ${Number(ball[1].toPrecision(3))}` : sure;
}

export class Generate extends Screen {
  static id = "generate";
  static name = "Generate";
  static title = "Generate";
  static hint = "Pictures of a class, each from a seed of its own.";
  static picture = "generate";

  alone = true;
  pictured = false;

  constructor(studio) {
    const chooser = new ClassChooser("Class");
    const start = new Segments(
      "Start from",
      [
        ["gaussian", "Class Gaussian"],
        ["noise", "Plain noise"],
      ],
      { labelled: true },
    );
    const count = new Slider("count", "How many", { min: 1, max: MOST, step: 1, value: 4 });
    const advanced = new Advanced();
    const go = new Go("Generate", { onstart: () => this.run(), onstop: () => this.stop() });
    super(
      studio,
      [chooser, count, ...advanced.all],
      chooser.element,
      start.element,
      count.element,
      advanced.element,
      go.element,
    );
    Object.assign(this, { chooser, start, count, advanced, go, tiles: [] });
    this.grid = h("div", { class: "tiles" });
    this.empty = h(
      "div",
      { class: "easel-empty" },
      h("p", { class: "empty-title" }, "Nothing generated yet"),
      h("p", {}, "Choose a class, and press Generate."),
    );
    this.stage = h("div", { class: "bench" }, this.empty, this.grid);
  }

  useModel(model) {
    this.chooser.model = model;
    this.start.allow(model.starts);
    this.advanced.use(model, "generate");
  }

  stop() {
    for (const tile of this.tiles) tile.order?.cancel();
  }

  /** Another screen does not end it: who works on one of the pictures wants the others, too. */
  leave() {
    this.here = false;
  }

  run() {
    return this.go.during(() => this.#make(), this.failures);
  }

  async #make() {
    const { seed, ...values } = this.advanced.values;
    const task = { task: "generate", target: this.chooser.target, start: this.start.chosen, ...values };
    this.tiles = Array.from({ length: this.count.number }, (_, i) => new Tile(this.studio, seed + i));
    this.grid.replaceChildren(...this.tiles.map((tile) => tile.element));
    this.grid.dataset.columns = Math.ceil(Math.sqrt(this.tiles.length));
    this.empty.hidden = true;
    await all(this.tiles.map((tile) => tile.make(task)));
  }
}
