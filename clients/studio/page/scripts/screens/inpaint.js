// In-paint: mark a part of the picture, and have it filled with what the class would have there.

import { h } from "../dom.js";
import { Advanced } from "../advanced.js";
import { ClassChooser } from "../choosers.js";
import { Check, Complaint, Segments, Select } from "../fields.js";
import { within } from "../pictures.js";
import { Brush, Outside } from "./brush.js";
import { OneShot } from "./oneshot.js";

export class Inpaint extends OneShot {
  static id = "inpaint";
  static name = "In-paint";
  static title = "In-paint";
  static hint = "Mark what should go; it is filled with what the class would have there.";
  static picture = "inpaint";

  constructor(studio) {
    const brush = new Brush(studio, { softness: 0 });
    const tools = new Segments(
      "Tool",
      [
        ["brush", "Brush"],
        ["box", "Box"],
        ["wipe", "Wipe"],
      ],
      { onchange: (tool) => this.#use(tool) },
    );
    const clear = h("button", { type: "button", class: "wide", onclick: () => this.#clear() }, "Clear the mask");
    const chooser = new ClassChooser("What it shows", { automatic: "what the classifier sees" });
    const whole = new Check("paste_back", "Whole photo", {
      note: "The result is the photo at its own resolution, with the part in it.",
    });
    const filling = new Select("filling", "Start from", {
      options: [
        ["", "as the card says"],
        ["smooth", "what is around the hole"],
        ["mean", "the picture's mean colour"],
      ],
    });
    const outside = new Outside();
    const advanced = new Advanced(filling, outside.pull);
    const complaint = new Complaint(tools.inputs[0]);
    const mask = { name: "mask", control: tools.inputs[0], fail: (text) => complaint.show(text) };
    super(
      studio,
      "Fill it",
      [mask, chooser, whole, filling, outside.pull, ...brush.fields, ...advanced.all],
      tools.element,
      complaint.element,
      ...brush.fields.map((field) => field.element),
      clear,
      chooser.element,
      whole.element,
      outside.element,
      advanced.element,
    );
    Object.assign(this, { brush, tools, chooser, whole, filling, outside, advanced, mask });
    this.resizedByKeys(brush.size);
  }

  useModel(model) {
    this.chooser.model = model;
    this.advanced.use(model, "inpaint");
    this.outside.pull.usual = model.defaults.inpaint.penalty;
    this.brush.scale(model.size);
  }

  changed() {
    super.changed();
    const { present } = this.studio.pictures;
    const photo = present?.photo;
    this.whole.element.hidden = !(photo && Math.min(photo.width, photo.height) > this.studio.size);
    this.brush.renew();
    const tool = {
      cursor: () => (this.tools.chosen === "box" ? 0 : this.brush.cursor),
      start: (point) => this.#start(point),
      move: (point) => this.#move(point),
      end: () => {},
    };
    this.studio.easel.use(present ? tool : null, "Mark what should be filled.");
  }

  async ask() {
    const { present } = this.studio.pictures;
    const { mask } = this.brush;
    const task = { task: "inpaint", ...this.advanced.values, ...this.outside.values };
    if (this.chooser.target) task.target = this.chooser.target;
    if (this.filling.chosen) task.filling = this.filling.chosen;
    const square = await this.studio.squared(present);
    const paste = !this.whole.element.hidden && this.whole.checked;
    const source = paste ? present.photo : { blob: square.blob, name: "" };
    const compose = (bitmap) => (task.hard_mask && !mask.empty ? within(mask, bitmap, square.bitmap) : bitmap);
    const files = { image: source.blob, mask: await mask.file() };
    this.brush.hide();
    return {
      task,
      files,
      options: { fit: "crop", paste_back: paste },
      own: source.name,
      start: square,
      compose,
    };
  }

  async run() {
    await super.run();
    if (this.here) this.brush.show();
  }

  #start(point) {
    if (this.busy) return;
    this.mask.fail("");
    this.from = point;
    this.kept = this.brush.mask.values.slice();
    this.keptArea = this.brush.mask.area;
    if (this.tools.chosen !== "box") this.brush.draw(point, { first: true, wipe: this.tools.chosen === "wipe" });
  }

  #move(point) {
    if (this.busy) return;
    if (this.tools.chosen !== "box") {
      this.brush.draw(point, { wipe: this.tools.chosen === "wipe" });
      return;
    }
    const { mask } = this.brush;
    Object.assign(mask, { values: this.kept.slice(), area: this.keptArea });
    mask.box(...[this.from, point].map((corner) => corner.map((share) => share * mask.side)));
    this.brush.show();
  }

  #use(tool) {
    for (const field of this.brush.fields) field.element.hidden = tool === "box";
    this.studio.easel.refresh();
  }

  #clear() {
    this.brush.mask.clear();
    this.brush.show();
  }
}
