// Translate: the picture as one of another class.

import { Advanced } from "../advanced.js";
import { ClassChooser } from "../choosers.js";
import { Slider } from "../fields.js";
import { OneShot } from "./oneshot.js";

export class Translate extends OneShot {
  static id = "translate";
  static name = "Translate";
  static title = "Translate";
  static hint = "Turn what the picture shows into something else, keeping its shape and pose.";
  static picture = "translate";

  constructor(studio) {
    const chooser = new ClassChooser("Into a");
    const reach = new Slider("epsilon", "How far", {
      min: 0.25,
      max: 2.5,
      step: 0.05,
      value: 1,
      show: (value) => `${Math.round(100 * value)} %`,
    });
    const advanced = new Advanced();
    super(studio, "Translate", [chooser, ...advanced.all, reach], chooser.element, reach.element, advanced.element);
    Object.assign(this, { chooser, reach, advanced });
  }

  useModel(model) {
    this.chooser.automatic = model.classes.length === 2 ? "the other one" : "";
    this.chooser.model = model;
    this.advanced.use(model, "translate");
  }

  changed() {
    this.studio.easel.use(null);
    super.changed();
  }

  async ask() {
    const start = await this.studio.squared(this.studio.pictures.present);
    const epsilon = this.reach.number * this.advanced.usual.epsilon;
    const task = { task: "translate", epsilon, ...this.advanced.values };
    if (this.chooser.target) task.target = this.chooser.target;
    return { task, files: { image: start.blob }, start };
  }
}
