// The brush of the screens that paint a mask: its size and softness, the mask that it leaves on the easel, and what becomes
// of what is outside of that.

import { h } from "../dom.js";
import { NumberField, Segments, Slider } from "../fields.js";
import { Mask } from "../mask.js";

const percent = (value) => `${Math.round(100 * value)} %`;

export class Brush {
  constructor(studio, { softness = 0.3 } = {}) {
    this.studio = studio;
    this.size = new Slider("brush", "Brush size", {
      min: 1,
      max: 32,
      step: 0.5,
      value: 8,
      show: (value) => `${value} px`,
      onchange: () => studio.easel.refresh(),
    });
    this.softness = new Slider("softness", "Softness", { min: 0, max: 1, step: 0.05, value: softness, show: percent });
    this.mask = new Mask(1);
    this.last = null;
  }

  get fields() {
    return [this.size, this.softness];
  }

  /** A share of the side. */
  get cursor() {
    return this.size.number / 2 / this.studio.size;
  }

  /** For pictures of another size: the brush keeps its share of them. */
  scale(side) {
    const share = this.size.number / Number(this.size.control.max);
    this.size.limit(1, side);
    this.size.set(Math.max(1, Math.round(2 * share * side) / 2));
  }

  renew() {
    this.mask = new Mask(this.studio.size);
    this.studio.easel.layered(this.mask.side);
  }

  /** Begin somewhere, or go on; how much was added. */
  draw(point, { first = false, wipe = false } = {}) {
    const at = point.map((share) => share * this.mask.side);
    const added = this.mask.line(first ? at : this.last, at, this.size.number / 2, this.softness.number, wipe);
    this.last = at;
    this.show();
    return added;
  }

  show() {
    this.mask.tint(this.studio.easel.context);
  }

  /** The tint is in the way while the picture changes. */
  hide() {
    const { layer, context } = this.studio.easel;
    context.clearRect(0, 0, layer.width, layer.height);
  }
}

const OUTSIDE = {
  hard: "Outside it, not a bit changes.",
  soft: "Outside it, changes are allowed, and pulled back.",
};

/** Whether what is outside the mask stays as it is, or is pulled back, and how much; `pull` is for the advanced fields. */
export class Outside {
  constructor() {
    this.note = h("p", { class: "field-note" }, OUTSIDE.hard);
    this.choice = new Segments(
      "Mask",
      [
        ["hard", "Hard"],
        ["soft", "Soft"],
      ],
      { onchange: (kind) => (this.note.textContent = OUTSIDE[kind]), labelled: true },
    );
    this.choice.element.append(this.note);
    this.element = this.choice.element;
    this.pull = new NumberField("penalty", "Pull", { note: "Weight of the changes outside a soft mask." });
  }

  get hard() {
    return this.choice.chosen === "hard";
  }

  /** As the task's JSON has it. */
  get values() {
    const penalty = this.pull.number;
    return { hard_mask: this.hard, ...(penalty === undefined ? {} : { penalty }) };
  }
}
