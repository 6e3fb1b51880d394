// The picture in work, and what it was before: each an Entry with all that it takes to make it again.

import { h } from "./dom.js";

/** A picture: a file, decoded. `side` is its width; results of whole photos may be wider than high. */
export class Entry {
  constructor(blob, bitmap, { photo = null, recipe = null, frames = [], report = null, inside = seen(report) } = {}) {
    Object.assign(this, { blob, bitmap, photo, recipe, frames, report, inside });
  }

  get side() {
    return this.bitmap.width;
  }

  static async of(blob, more) {
    return new Entry(blob, await createImageBitmap(blob), more);
  }
}

/** What is to be seen inside of a result: its target, losses, and [distance, radius] of an L2 ball. */
function seen(report) {
  if (!report) return { target: "", losses: [], ball: null };
  const [{ target, losses, l2 }] = report.pictures;
  return { target, losses, ball: report.parameters.norm === "l2" ? [l2, report.parameters.epsilon] : null };
}

/** Tells `change` when another picture is the present one. */
export class Pictures extends EventTarget {
  #entries = [];
  #at = -1;
  #most = 100;

  get present() {
    return this.#entries[this.#at] ?? null;
  }

  get before() {
    return this.#entries[this.#at - 1] ?? null;
  }

  get undoable() {
    return this.#at > 0;
  }

  get redoable() {
    return this.#at < this.#entries.length - 1;
  }

  /** The present picture was changed, or another one begun with; what was undone is forgotten. */
  push(entry) {
    this.#entries.splice(this.#at + 1, Infinity, entry);
    if (this.#entries.length > this.#most) this.#entries.shift();
    this.#at = this.#entries.length - 1;
    this.#tell();
  }

  undo() {
    this.#move(-1);
  }

  redo() {
    this.#move(1);
  }

  #move(by) {
    if (!this.#entries[this.#at + by]) return;
    this.#at += by;
    this.#tell();
  }

  #tell() {
    this.dispatchEvent(new Event("change"));
  }
}

/** The square in the middle of a picture, which is what the classifier sees of it: a bitmap or a canvas. */
export function centred(bitmap) {
  const { width, height } = bitmap;
  if (width === height) return bitmap;
  const side = Math.min(width, height);
  const canvas = new OffscreenCanvas(side, side);
  canvas.getContext("2d").drawImage(bitmap, -Math.floor((width - side) / 2), -Math.floor((height - side) / 2));
  return canvas;
}

/** A canvas that shows pictures enlarged. */
export function screened(label) {
  return h("canvas", { class: "pixels", width: 1, height: 1, role: "img", "aria-label": label });
}

/** All of a picture on a canvas, which becomes as large. */
export function draw(canvas, bitmap) {
  Object.assign(canvas, { width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
}

/** Euclidean distance of two pictures of one size, in pixel values of [0, 1]; of those that a mask has, where one is given. */
export function distance(one, other, mask = null) {
  const [a, b] = [pixels(one), pixels(other)];
  if (a.length !== b.length) return null;
  let sum = 0;
  for (let i = 0; i < a.length; i += 1) {
    if (i % 4 !== 3 && (!mask || mask.values[i >> 2])) sum += (a[i] - b[i]) ** 2;
  }
  return Math.sqrt(sum) / 255;
}

function pixels(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height).data;
}

/** A picture over another, where the mask has it; both are as large as the mask. */
export function within(mask, over, under) {
  const canvas = new OffscreenCanvas(mask.side, mask.side);
  const context = canvas.getContext("2d");
  context.putImageData(mask.alpha, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.drawImage(over, 0, 0, mask.side, mask.side);
  context.globalCompositeOperation = "destination-over";
  context.drawImage(under, 0, 0, mask.side, mask.side);
  return canvas;
}

/** A canvas as a PNG file. */
export function file(canvas) {
  if (canvas.convertToBlob) return canvas.convertToBlob({ type: "image/png" });
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}
