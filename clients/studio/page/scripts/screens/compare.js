// Look inside: the same picture and the same target, for a robust classifier and its standard twin, side by side.

import { h } from "../dom.js";
import { Advanced } from "../advanced.js";
import { ClassChooser } from "../choosers.js";
import { Go } from "../go.js";
import { Inside } from "../inside.js";
import { all, making } from "../making.js";
import { draw, screened } from "../pictures.js";
import { Results } from "../results.js";
import { Screen } from "./screen.js";

/** Of classes: so the loss and the ball are below them without scrolling. */
const BARS = 5;

/** One of the two. */
class Side {
  constructor(studio, title, note) {
    this.studio = studio;
    this.entry = null;
    this.inside = new Inside(studio.link, { bars: BARS });
    this.canvas = screened(`What ${title} makes of it`);
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

  begin(model, start) {
    this.entry = null;
    this.model = model;
    this.name.textContent = model.name;
    draw(this.canvas, start.bitmap);
    this.results.refresh();
    this.inside.restart("");
    this.inside.classify(model, start.blob);
  }

  async make(task, start) {
    this.inside.restart(task.target);
    this.order = making(this.studio.link, this.model, task, {
      files: { image: start.blob },
      start,
      onframe: async ({ blob, loss }) => {
        this.inside.add(loss);
        if (!blob) return;
        this.inside.classify(this.model, blob);
        const bitmap = await createImageBitmap(blob);
        if (!this.entry) draw(this.canvas, bitmap);
      },
    });
    this.entry = await this.order;
    draw(this.canvas, this.entry.bitmap);
    this.inside.show(this.entry.inside);
    this.inside.classify(this.model, this.entry.blob);
    this.results.refresh();
  }
}

export class Compare extends Screen {
  static id = "inside";
  static name = "Look inside";
  static title = "Robust against standard";
  static hint =
    "The same picture and target for both: the robust one shows the class, the standard one is content with noise.";
  static picture = "compare";

  alone = true;

  constructor(studio) {
    const chooser = new ClassChooser("Add features of a");
    const advanced = new Advanced();
    const go = new Go("Compare", { onstart: () => this.run(), onstop: () => this.stop() });
    super(studio, [chooser, ...advanced.all], chooser.element, advanced.element, go.element);
    Object.assign(this, { chooser, advanced, go });
    this.sides = [
      new Side(studio, "Robust", "Trained against small changes."),
      new Side(studio, "Standard", "Trained on pictures as they are."),
    ];
    this.both = h(
      "div",
      { class: "sides" },
      this.sides.map((side) => side.element),
    );
    this.empty = h("div", { class: "easel-empty" }, ...studio.tools.invitation());
    this.missing = h("div", { class: "easel-empty" });
    this.stage = h("div", { class: "bench" }, this.empty, this.missing, this.both);
    studio.addEventListener("models", () => {
      const paired = Boolean(this.pair);
      if (studio.model) this.#pair();
      if (this.here && paired !== Boolean(this.pair)) this.changed();
    });
  }

  useModel(model) {
    this.chooser.model = model;
    this.advanced.use(model, "maximize_class");
    this.#pair();
  }

  async changed() {
    const { present } = this.studio.pictures;
    const { pair } = this;
    this.missing.hidden = Boolean(pair) || !this.studio.model;
    this.empty.hidden = Boolean(present) || !this.missing.hidden;
    this.both.hidden = !present || !pair;
    this.go.possible = Boolean(present && pair);
    if (!present || !pair) return;
    try {
      const start = await this.studio.squared(present);
      this.sides.forEach((side, i) => side.begin(pair[i], start));
    } catch (failure) {
      this.failures.show(failure);
    }
  }

  stop() {
    for (const side of this.sides) side.order?.cancel();
  }

  run() {
    return this.go.during(() => this.#make(), this.failures);
  }

  /** With the parameters of the classifier that is chosen, for both. */
  async #make() {
    const { pair } = this;
    const { norm, epsilon, step_size, steps } = this.advanced.usual;
    const usual = { norm, epsilon, step_size, steps };
    const task = { task: "maximize_class", target: this.chooser.target, ...usual, ...this.advanced.values };
    const start = await this.studio.squared(this.studio.pictures.present);
    this.sides.forEach((side, i) => side.begin(pair[i], start));
    await all(this.sides.map((side) => side.make(task, start)));
  }

  /** The robust and the standard one of the model's classes and size, or how to come by such two. */
  #pair() {
    this.pair = this.#paired(this.studio.model);
    if (this.pair) return;
    const { name, role } = this.studio.model;
    const other = this.studio.models.find((model) => this.#paired(model));
    this.missing.replaceChildren(
      h("p", { class: "empty-title" }, `${name} has nothing to be compared with`),
      h(
        "p",
        {},
        `The service has no ${role === "standard" ? "robust" : "standard"} classifier of its classes and size.`,
      ),
      other
        ? h(
            "div",
            { class: "empty-actions" },
            h(
              "button",
              { type: "button", class: "primary", onclick: () => this.studio.useModel(other.name) },
              `Use ${other.name}`,
            ),
          )
        : "",
    );
  }

  #paired(model) {
    const twin = (role) =>
      this.studio.models.find(
        (each) => each.role === role && each.size === model.size && String(each.classes) === String(model.classes),
      );
    const pair = model.role === "standard" ? [twin("robust"), model] : [model, twin("standard")];
    return pair.every(Boolean) ? pair : null;
  }
}
