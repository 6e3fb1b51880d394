// What screens have in common: a stage, a panel, and what happens when they come and go.

import { h } from "../dom.js";
import { Failures } from "../fields.js";

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

  enter() {
    this.here = true;
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
