// What screens have in common: a stage, a panel, and what happens when they come and go.

import { h } from "../dom.js";
import { Failures } from "../fields.js";

/** Where keys write. */
export const WRITTEN = "input[type=search], input[type=number], textarea";

export class Screen {
  static id = "";
  static name = "";
  static title = "";
  static hint = "";
  static picture = "";
  /** It has its own look inside. */
  alone = false;
  /** It is about the picture in work. */
  pictured = true;
  /** It draws on what the classifier sees of a whole photo. */
  square = false;

  constructor(studio, fields, ...parts) {
    this.studio = studio;
    this.failures = new Failures(fields);
    this.panel = h("div", { class: "controls" }, ...parts, this.failures.element);
    this.stage = studio.bench;
    this.here = false;
    studio.addEventListener("model", () => {
      this.useModel(studio.model);
      if (this.here) this.changed();
    });
    studio.pictures.addEventListener("change", () => this.here && this.changed());
  }

  /** The keys [ and ] change a brush. */
  resizedByKeys(size) {
    const keys = [h("kbd", {}, "["), " and ", h("kbd", {}, "]"), " change the brush size."];
    this.failures.element.before(h("p", { class: "keys" }, ...keys));
    addEventListener("keydown", ({ key, target }) => {
      if (!this.here || !["[", "]"].includes(key) || target.matches(WRITTEN)) return;
      size.nudge(key === "]" ? 1 : -1);
      this.studio.easel.refresh();
    });
  }

  enter() {
    this.here = true;
    this.studio.easel.square = this.square;
    this.studio.settle();
    this.changed();
  }

  leave() {
    this.here = false;
    this.stop();
    this.studio.easel.use(null);
    this.studio.easel.layered(1);
  }

  useModel() {}

  /** There is another picture. */
  changed() {}

  /** Take back what is under way. */
  stop() {}
}
