// Where to edit, in pixels of the picture: 0 is kept, 255 is edited, in between are soft edges.

import { file } from "./pictures.js";

const TINT = [255, 64, 110];

export class Mask {
  constructor(side) {
    this.side = side;
    this.canvas = new OffscreenCanvas(side, side);
    this.clear();
  }

  clear() {
    this.values = new Uint8ClampedArray(this.side * this.side);
    this.doses = new Uint32Array(this.values.length);
    this.area = 0;
  }

  get empty() {
    return this.area === 0;
  }

  /** Brush from one point to the other, or wipe; all in pixels. Softness from 0 to 1. Returns how much was added. */
  line([x0, y0], [x1, y1], radius, softness, wipe = false) {
    const reach = radius + 1;
    const [left, right] = [Math.min(x0, x1) - reach, Math.max(x0, x1) + reach];
    const [top, bottom] = [Math.min(y0, y1) - reach, Math.max(y0, y1) + reach];
    const before = this.area;
    for (let y = Math.max(0, Math.floor(top)); y < Math.min(this.side, bottom); y += 1) {
      for (let x = Math.max(0, Math.floor(left)); x < Math.min(this.side, right); x += 1) {
        const away = toSegment(x + 0.5, y + 0.5, x0, y0, x1, y1);
        this.#put(y * this.side + x, Math.round(255 * cover(away, radius, softness)), wipe);
      }
    }
    return this.area - before;
  }

  /** A rectangle between two corners, in pixels. */
  box([x0, y0], [x1, y1]) {
    const [left, right] = [Math.round(Math.min(x0, x1)), Math.round(Math.max(x0, x1))];
    const [top, bottom] = [Math.round(Math.min(y0, y1)), Math.round(Math.max(y0, y1))];
    for (let y = Math.max(0, top); y < Math.min(this.side, bottom); y += 1) {
      for (let x = Math.max(0, left); x < Math.min(this.side, right); x += 1) this.#put(y * this.side + x, 255, false);
    }
  }

  #put(at, value, wipe) {
    const old = this.values[at];
    const next = wipe ? Math.min(old, 255 - value) : Math.max(old, value);
    this.values[at] = next;
    this.area += (next - old) / 255;
    if (this.area < 1e-6) this.area = 0;
  }

  /** Steps that some part of it still has to come, of so many for each. */
  thirst(steps) {
    let most = 0;
    for (const [i, value] of this.values.entries()) if (value) most = Math.max(most, steps - this.doses[i]);
    return most;
  }

  /** The part that has not had so many steps yet. */
  wet(steps) {
    const part = new Mask(this.side);
    part.values = this.values.map((value, i) => (this.doses[i] < steps ? value : 0));
    part.area = part.values.reduce((sum, value) => sum + value, 0) / 255;
    return part;
  }

  /** A part of it has had so many steps. */
  soak(part, steps) {
    for (const [i, value] of part.values.entries()) if (value) this.doses[i] += steps;
  }

  /** Draw over a canvas of the same size what has not changed yet. */
  tint(context) {
    const image = this.#image((value, i) => colour(...TINT, this.doses[i] ? 0 : value / 2));
    context.putImageData(image, 0, 0);
  }

  /** As the opacity of black. */
  get alpha() {
    return this.#image((value) => colour(0, 0, 0, value));
  }

  /** As a grey PNG. */
  file() {
    const image = this.#image((value) => colour(value, value, value, 255));
    this.canvas.getContext("2d").putImageData(image, 0, 0);
    return file(this.canvas);
  }

  #image(colourOf) {
    const image = new ImageData(this.side, this.side);
    const pixels = new Uint32Array(image.data.buffer);
    this.values.forEach((value, i) => (pixels[i] = colourOf(value, i)));
    return image;
  }
}

/** A pixel, as four bytes in the order of memory. */
function colour(red, green, blue, opacity) {
  return (opacity << 24) | (blue << 16) | (green << 8) | red;
}

function toSegment(x, y, x0, y0, x1, y1) {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const length = dx * dx + dy * dy;
  const along = length ? Math.min(1, Math.max(0, ((x - x0) * dx + (y - y0) * dy) / length)) : 0;
  return Math.hypot(x - x0 - along * dx, y - y0 - along * dy);
}

/** Share of a pixel that a brush covers whose middle is so far away. */
function cover(away, radius, softness) {
  const inner = radius * (1 - softness);
  if (away <= inner - 0.5) return 1;
  const fall = Math.max(1, radius - inner + 0.5);
  return Math.min(1, Math.max(0, 1 - (away - inner + 0.5) / fall));
}
