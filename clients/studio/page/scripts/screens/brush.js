// The brush of the screens that paint a mask: its size and softness, and the mask that it leaves on the easel.

import { Segments, Slider } from "../fields.js";
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

/** Whether what is outside stays as it is, or is only pulled back. */
export function hardness() {
  return new Segments("Outside the mask", [
    ["hard", "Keep outside"],
    ["soft", "Pull outside back"],
  ]);
}
