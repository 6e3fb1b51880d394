// The large picture: shows it, what is drawn over it, and tells where pointers and keys draw.
//
// Points are shares of the side, from 0 to 1, of the square that the classifier sees: the middle of a whole photo.
// A screen gives `tool`: { cursor(): the brush's radius as a share, start(point), move(point), end() }.

import { h } from "./dom.js";
import { centred } from "./pictures.js";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = new Set([" ", "Enter"]);

export class Easel {
  #pointer = null;
  #keyed = false;
  #touched = false;
  #point = [0.5, 0.5];

  constructor() {
    this.base = h("canvas", { class: "easel-base", width: 0, height: 0 });
    this.layer = h("canvas", { class: "easel-layer", width: 1, height: 1 });
    this.cursor = h("div", { class: "easel-cursor", hidden: true });
    this.frame = h("div", { class: "easel-frame" }, this.layer, this.cursor);
    this.surface = h("div", { class: "easel-surface", tabindex: "0", role: "application" }, this.base, this.frame);
    this.empty = h("div", { class: "easel-empty" });
    this.element = h("div", { class: "easel" }, this.surface, this.empty);
    this.tool = null;
    /** Of whole photos, show only what the classifier sees. */
    this.square = false;
    this.#listen();
    this.describe("");
  }

  /** How the picture is drawn with: said to who cannot see the brush. */
  describe(text) {
    this.surface.setAttribute("aria-label", `Picture. ${text}`);
  }

  get context() {
    return this.layer.getContext("2d");
  }

  show(picture) {
    this.empty.hidden = Boolean(picture);
    this.surface.hidden = !picture;
    if (!picture) return;
    const bitmap = this.square ? centred(picture) : picture;
    if (this.base.width !== bitmap.width || this.base.height !== bitmap.height) {
      Object.assign(this.base, { width: bitmap.width, height: bitmap.height });
      this.surface.style.aspectRatio = `${bitmap.width} / ${bitmap.height}`;
      const side = Math.min(bitmap.width, bitmap.height);
      this.frame.style.width = `${(100 * side) / bitmap.width}%`;
      this.frame.style.height = `${(100 * side) / bitmap.height}%`;
    }
    this.base.getContext("2d").drawImage(bitmap, 0, 0);
    this.#placeCursor();
  }

  /** Size of what is drawn over the picture, which is wiped. */
  layered(side) {
    Object.assign(this.layer, { width: side, height: side });
  }

  use(tool, description = "") {
    this.#finish();
    this.tool = tool;
    this.surface.classList.toggle("drawable", Boolean(tool));
    this.describe(tool ? `${description} Arrow keys move the brush, hold Space to draw.` : description);
    this.#placeCursor();
  }

  refresh() {
    this.#placeCursor();
  }

  #listen() {
    const surface = this.surface;
    surface.addEventListener("pointerdown", (event) => {
      if (!this.tool || event.button !== 0 || this.#pointer !== null) return;
      event.preventDefault();
      surface.focus({ preventScroll: true });
      surface.setPointerCapture(event.pointerId);
      this.#pointer = event.pointerId;
      this.#touched = event.pointerType === "touch";
      this.#draw("start", this.#at(event));
    });
    surface.addEventListener("pointermove", (event) => {
      this.#point = this.#at(event);
      if (event.pointerId === this.#pointer) {
        const all = event.getCoalescedEvents?.() ?? [];
        for (const each of all.length ? all : [event]) this.#draw("move", this.#at(each));
      }
      this.#placeCursor();
    });
    for (const end of ["pointerup", "pointercancel"]) {
      surface.addEventListener(end, (event) => {
        if (event.pointerId === this.#pointer) this.#finish();
      });
    }
    surface.addEventListener("pointerleave", () => (this.cursor.hidden = surface !== document.activeElement));
    surface.addEventListener("focus", () => this.#placeCursor());
    surface.addEventListener("blur", () => {
      this.cursor.hidden = true;
      if (this.#keyed) this.#finish();
    });
    surface.addEventListener("keydown", (event) => this.#key(event));
    surface.addEventListener("keyup", (event) => {
      if (this.#keyed && KEYS.has(event.key)) this.#finish();
    });
  }

  #key(event) {
    if (!this.tool || event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key];
    this.#touched = false;
    if (arrow) {
      const by = (event.shiftKey ? 5 : 1) / Math.min(64, this.base.width);
      this.#point = this.#point.map((value, i) => Math.min(1, Math.max(0, value + by * arrow[i])));
      if (this.#keyed) this.#draw("move", this.#point);
      this.#placeCursor();
    } else if (KEYS.has(event.key)) {
      if (!event.repeat && !this.#keyed) {
        this.#keyed = true;
        this.#draw("start", this.#point);
      }
    } else return;
    event.preventDefault();
  }

  #at({ clientX, clientY }) {
    const box = this.frame.getBoundingClientRect();
    return [(clientX - box.left) / box.width, (clientY - box.top) / box.height];
  }

  #draw(what, point) {
    this.tool[what](point);
  }

  #finish() {
    if (this.#pointer === null && !this.#keyed) return;
    this.#pointer = null;
    this.#keyed = false;
    this.tool?.end();
    this.#placeCursor();
  }

  #placeCursor() {
    const away = this.#touched && this.#pointer === null; // a finger hovers over nothing
    this.cursor.hidden = away || !this.tool || !this.surface.matches(":hover, :focus");
    if (this.cursor.hidden) return;
    const radius = this.tool.cursor();
    const style = this.cursor.style;
    style.left = `${100 * this.#point[0]}%`;
    style.top = `${100 * this.#point[1]}%`;
    style.width = radius ? `${200 * radius}%` : "9px"; // a point
  }
}
