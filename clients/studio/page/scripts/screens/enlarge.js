// Super-resolve: a small picture enlarged, with the detail that its class has.

import { h } from "../dom.js";
import { Advanced } from "../advanced.js";
import { ClassChooser } from "../choosers.js";
import { Select } from "../fields.js";
import { Entry, centred, file } from "../pictures.js";
import { OneShot } from "./oneshot.js";

const FACTORS = [2, 3, 4, 5, 6, 7, 8];

export class Enlarge extends OneShot {
  static id = "super-resolve";
  static name = "Super-resolve";
  static title = "Super-resolution";
  static hint = "The picture is reduced to what goes in, and enlarged again with the detail that its class has.";
  static picture = "enlarge";

  constructor(studio) {
    const factor = new Select("factor", "Enlarge", { onchange: () => this.changed() });
    const chooser = new ClassChooser("What it shows", { automatic: "what the classifier sees" });
    const upsampling = new Select("upsampling", "Start from", {
      options: [
        ["", "as the card says"],
        ["bicubic", "a smooth enlargement"],
        ["nearest", "blocks"],
      ],
    });
    const advanced = new Advanced(upsampling);
    const canvas = h("canvas", {
      class: "thumb crisp",
      width: 1,
      height: 1,
      role: "img",
      "aria-label": "What goes in",
    });
    const small = h(
      "div",
      { class: "field goes-in" },
      h("div", { class: "field-head" }, h("span", {}, "What goes in"), h("output", { class: "field-value" })),
      canvas,
    );
    super(
      studio,
      "Enlarge",
      [factor, chooser, upsampling, ...advanced.all],
      factor.element,
      small,
      chooser.element,
      advanced.element,
    );
    Object.assign(this, { factor, chooser, upsampling, advanced, canvas, small });
  }

  useModel(model) {
    this.chooser.model = model;
    this.advanced.use(model, "super_resolve");
    const factors = FACTORS.filter((factor) => model.size % factor === 0);
    this.factor.fill(
      factors.map((factor) => [String(factor), `${factor} times, from ${model.size / factor} to ${model.size} px`]),
    );
    if (factors.includes(4)) this.factor.control.value = "4";
  }

  changed() {
    super.changed();
    const { present } = this.studio.pictures;
    this.studio.easel.use(null);
    this.small.hidden = !present;
    if (present && this.here) this.#reduce(present.bitmap);
  }

  /** The size of what goes in. */
  get side() {
    return this.studio.size / Number(this.factor.chosen);
  }

  #reduce(bitmap) {
    Object.assign(this.canvas, { width: this.side, height: this.side });
    const context = this.canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(centred(bitmap), 0, 0, this.side, this.side);
    this.small.querySelector("output").textContent = `${this.side} × ${this.side} px`;
  }

  async ask() {
    const start = await Entry.of(await file(this.canvas));
    const task = { task: "super_resolve", factor: Number(this.factor.chosen), ...this.advanced.values };
    if (this.chooser.target) task.target = this.chooser.target;
    if (this.upsampling.chosen) task.upsampling = this.upsampling.chosen;
    return { task, files: { image: start.blob }, start };
  }
}
