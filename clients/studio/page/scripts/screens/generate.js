// Generate: pictures of a class from several seeds, side by side, each as it comes to be.

import { h } from "../dom.js";
import { ClassChooser } from "../choosers.js";
import { Advanced, Failures, Segments, Slider } from "../fields.js";
import { Entry } from "../pictures.js";
import { Results } from "../results.js";
import { Screen } from "./screen.js";

const FRAMES = 24;
const MOST = 9;

/** One seed: its picture, where it stands, and what can be done with it. */
class Tile {
  constructor(studio, seed) {
    this.studio = studio;
    this.seed = seed;
    this.entry = null;
    this.canvas = h("canvas", {
      class: "pixels",
      width: 1,
      height: 1,
      role: "img",
      "aria-label": `Picture of seed ${seed}`,
    });
    this.progress = h("progress", { max: 1, value: 0, "aria-label": `Progress of seed ${seed}` });
    this.caption = h("span", { class: "tile-caption" }, "Waiting…");
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
      h("figcaption", {}, this.caption, h("div", { class: "tile-actions" }, this.use, this.results.element)),
    );
  }

  async make(task, epsilon) {
    const { studio } = this;
    const model = studio.model.name;
    const frames = [];
    const head = {
      do: "make",
      model,
      options: { size: studio.size },
      task: { ...task, seed: this.seed },
      frames: FRAMES,
      with: [],
    };
    this.order = studio.link.order(head, [], {
      onqueued: ({ position }) => (this.caption.textContent = position ? `${position} ahead` : "Waiting…"),
      onframe: async (event) => {
        this.progress.value = event.step / event.steps;
        this.caption.textContent = `Step ${event.step} of ${event.steps}`;
        if (event.blob) frames.push(event.blob);
        if (event.blob && !this.entry) this.#draw(await createImageBitmap(event.blob));
      },
    });
    try {
      const { report, blobs } = await this.order;
      const blob = new Blob(blobs, { type: "image/png" });
      const recipe = { model, picture: null, own: "", edits: [{ report }] };
      this.entry = await Entry.of(blob, { recipe, report, frames: [...frames, blob] });
      this.#draw(this.entry.bitmap, true);
      const [picture] = report.pictures;
      const sure = `${Math.round(100 * picture.probability_after)} %`;
      const way = `L2 ${picture.l2.toFixed(1)} of ${Number(epsilon.toPrecision(3))}`;
      this.caption.textContent = `Seed ${this.seed} · ${sure} · ${way}`;
      this.use.disabled = false;
      this.results.refresh();
    } catch (failure) {
      this.caption.textContent = failure.cancelled ? "Stopped" : "Failed";
      throw failure;
    } finally {
      this.progress.hidden = true;
    }
  }

  #draw(bitmap, last = false) {
    if (this.entry && !last) return;
    Object.assign(this.canvas, { width: bitmap.width, height: bitmap.height });
    this.canvas.getContext("2d").drawImage(bitmap, 0, 0);
  }

  #use() {
    this.studio.pictures.open(this.entry);
    location.hash = "#paint";
  }
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
    const start = new Segments("Start from", [
      ["gaussian", "Class Gaussian"],
      ["noise", "Plain noise"],
    ]);
    const count = new Slider("count", "How many", { min: 1, max: MOST, step: 1, value: 4 });
    const advanced = new Advanced();
    const go = h("button", { type: "button", class: "primary wide" }, "Generate");
    const stop = h("button", { type: "button", class: "wide", hidden: true }, "Stop");
    super(
      studio,
      [chooser, count, ...advanced.all],
      chooser.element,
      start.element,
      count.element,
      advanced.element,
      h("div", { class: "go" }, go, stop),
    );
    Object.assign(this, { chooser, start, count, advanced, go, stopButton: stop, tiles: [] });
    this.grid = h("div", { class: "tiles" });
    this.empty = h(
      "div",
      { class: "easel-empty" },
      h("p", { class: "empty-title" }, "Nothing generated yet"),
      h("p", {}, "Choose a class, and press Generate."),
    );
    this.stage = h("div", { class: "bench" }, this.empty, this.grid);
    go.addEventListener("click", () => this.run());
    stop.addEventListener("click", () => this.stop());
  }

  useModel(model) {
    this.chooser.model = model;
    this.start.allow(model.starts);
    this.defaults = model.defaults.generate;
    this.advanced.defaults = this.defaults;
  }

  stop() {
    for (const tile of this.tiles) tile.order?.cancel();
  }

  async run() {
    this.failures.clear();
    const { seed, ...values } = this.advanced.values;
    const task = { task: "generate", target: this.chooser.target, start: this.start.chosen, ...values };
    this.tiles = Array.from({ length: this.count.number }, (_, i) => new Tile(this.studio, seed + i));
    this.grid.replaceChildren(...this.tiles.map((tile) => tile.element));
    this.grid.dataset.count = this.tiles.length;
    this.empty.hidden = true;
    this.#turn(true);
    const epsilon = task.epsilon ?? this.defaults.epsilon;
    const ends = await Promise.allSettled(this.tiles.map((tile) => tile.make(task, epsilon)));
    const failed = ends.find(({ status, reason }) => status === "rejected" && !reason.cancelled);
    if (failed) this.failures.show(failed.reason);
    this.#turn(false);
  }

  #turn(busy) {
    this.go.hidden = busy;
    this.stopButton.hidden = !busy;
  }
}
