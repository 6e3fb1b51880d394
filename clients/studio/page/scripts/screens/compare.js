// Look inside: the same picture and the same target, for a robust classifier and its standard twin, side by side.

import { h } from "../dom.js";
import { ClassChooser } from "../choosers.js";
import { Advanced } from "../fields.js";
import { Inside } from "../inside.js";
import { Entry } from "../pictures.js";
import { Results } from "../results.js";
import { Screen } from "./screen.js";

const FRAMES = 24;

/** One of the two. */
class Side {
  constructor(studio, title, note) {
    this.studio = studio;
    this.entry = null;
    this.inside = new Inside(studio.link);
    this.canvas = h("canvas", {
      class: "pixels",
      width: 1,
      height: 1,
      role: "img",
      "aria-label": `What ${title} makes of it`,
    });
    this.results = new Results({
      link: studio.link,
      present: () => this.entry,
      notify: (text) => studio.notify(text),
      small: true,
    });
    this.name = h("span", { class: "side-name" });
    this.element = h(
      "section",
      { class: "side" },
      h("h2", {}, title, " ", this.name),
      h("p", { class: "side-note" }, note),
      this.canvas,
      this.results.element,
      this.inside.element,
    );
  }

  show(bitmap) {
    Object.assign(this.canvas, { width: bitmap.width, height: bitmap.height });
    this.canvas.getContext("2d").drawImage(bitmap, 0, 0);
  }

  begin(model, start) {
    this.entry = null;
    this.model = model;
    this.name.textContent = model.name;
    this.show(start.bitmap);
    this.results.refresh();
    this.inside.restart("");
    this.inside.classify(model, start.blob);
  }

  async make(task, start) {
    const frames = [start.blob];
    this.inside.restart(task.target);
    const head = {
      do: "make",
      model: this.model.name,
      options: { size: this.model.size },
      task,
      frames: FRAMES,
      with: ["image"],
    };
    this.order = this.studio.link.order(head, [start.blob], {
      onframe: async ({ blob, loss }) => {
        this.inside.add(loss);
        if (!blob) return;
        frames.push(blob);
        this.inside.classify(this.model, blob);
        const bitmap = await createImageBitmap(blob);
        if (!this.entry) this.show(bitmap);
      },
    });
    const { report, blobs } = await this.order;
    const blob = new Blob(blobs, { type: "image/png" });
    const recipe = { model: this.model.name, picture: start.blob, own: "", edits: [{ report }] };
    this.entry = await Entry.of(blob, { recipe, report, frames: [...frames, blob] });
    this.show(this.entry.bitmap);
    this.inside.show(this.entry.inside);
    this.inside.classify(this.model, blob);
    this.results.refresh();
  }
}

export class Compare extends Screen {
  static id = "inside";
  static name = "Look inside";
  static title = "Robust against standard";
  static hint =
    "The same picture and target for both: the robust classifier shows the class, the standard one is content with noise.";
  static picture = "compare";

  alone = true;

  constructor(studio) {
    const chooser = new ClassChooser("Add features of a");
    const advanced = new Advanced();
    const go = h("button", { type: "button", class: "primary wide" }, "Compare");
    const stop = h("button", { type: "button", class: "wide", hidden: true }, "Stop");
    const missing = h("p", { class: "failure", hidden: true });
    super(
      studio,
      [chooser, ...advanced.all],
      chooser.element,
      advanced.element,
      missing,
      h("div", { class: "go" }, go, stop),
    );
    Object.assign(this, { chooser, advanced, go, stopButton: stop, missing });
    this.sides = [
      new Side(studio, "Robust", "Trained against small changes."),
      new Side(studio, "Standard", "Trained on the pictures as they are."),
    ];
    this.own = h(
      "div",
      { class: "sides" },
      this.sides.map((side) => side.element),
    );
    this.empty = h(
      "div",
      { class: "easel-empty" },
      h("p", { class: "empty-title" }, "No picture yet"),
      h("p", {}, "Drop a photo here, or paste one."),
      h(
        "div",
        { class: "empty-actions" },
        h("button", { type: "button", class: "primary", onclick: () => studio.chooser.click() }, "Open a photo"),
      ),
    );
    this.stage = h("div", { class: "bench" }, this.empty, this.own);
    go.addEventListener("click", () => this.run());
    stop.addEventListener("click", () => this.stop());
  }

  useModel(model) {
    this.chooser.model = model;
    this.defaults = model.defaults.maximize_class;
    this.advanced.defaults = this.defaults;
    const twin = (role) =>
      this.studio.models.find(
        (each) => each.role === role && each.size === model.size && String(each.classes) === String(model.classes),
      );
    this.pair = model.role === "standard" ? [twin("robust"), model] : [model, twin("standard")];
    const lacks = this.pair.findIndex((each) => !each);
    this.missing.hidden = lacks < 0;
    this.missing.textContent =
      lacks < 0
        ? ""
        : `The service has no ${["robust", "standard"][lacks]} classifier with the classes and the size of ${model.name}.`;
  }

  async changed() {
    const { present } = this.studio.pictures;
    this.empty.hidden = Boolean(present);
    this.own.hidden = !present;
    this.go.disabled = !present || !this.missing.hidden;
    if (!present || !this.pair) return;
    const start = await this.studio.squared(present);
    this.sides.forEach((side, i) => this.pair[i] && side.begin(this.pair[i], start));
  }

  stop() {
    for (const side of this.sides) side.order?.cancel();
  }

  async run() {
    this.failures.clear();
    const { present } = this.studio.pictures;
    const { epsilon, step_size: size, steps } = this.defaults;
    const task = {
      task: "maximize_class",
      target: this.chooser.target,
      epsilon,
      step_size: size,
      steps,
      ...this.advanced.values,
    };
    this.#turn(true);
    const start = await this.studio.squared(present);
    this.sides.forEach((side, i) => side.begin(this.pair[i], start));
    const ends = await Promise.allSettled(this.sides.map((side) => side.make(task, start)));
    const failed = ends.find(({ status, reason }) => status === "rejected" && !reason.cancelled);
    if (failed) this.failures.show(failed.reason);
    this.#turn(false);
  }

  #turn(busy) {
    this.go.hidden = busy;
    this.stopButton.hidden = !busy;
  }
}
