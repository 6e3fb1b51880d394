// The large picture: shows it, what is drawn over it, and tells where pointers and keys draw.
//
// Points are shares of the side, from 0 to 1. A screen gives `tool`: { cursor(): the brush's radius as a share,
// start(point), move(point), end() }.

import { h } from "./dom.js";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = new Set([" ", "Enter"]);

export class Easel {
  #pointer = null;
  #keyed = false;
  #point = [0.5, 0.5];
  #shown = null;

  constructor() {
    this.base = h("canvas", { class: "easel-base", width: 1, height: 1 });
    this.layer = h("canvas", { class: "easel-layer", width: 1, height: 1 });
    this.cursor = h("div", { class: "easel-cursor", hidden: true });
    this.surface = h(
      "div",
      { class: "easel-surface", tabindex: "0", role: "application" },
      this.base,
      this.layer,
      this.cursor,
    );
    this.empty = h("div", { class: "easel-empty" });
    this.element = h("div", { class: "easel" }, this.surface, this.empty);
    this.tool = null;
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

  get shown() {
    return this.#shown;
  }

  show(bitmap) {
    this.#shown = bitmap;
    this.empty.hidden = Boolean(bitmap);
    this.surface.hidden = !bitmap;
    if (!bitmap) return;
    if (this.base.width !== bitmap.width || this.base.height !== bitmap.height) {
      Object.assign(this.base, { width: bitmap.width, height: bitmap.height });
      this.surface.style.aspectRatio = `${bitmap.width} / ${bitmap.height}`;
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
    const box = this.surface.getBoundingClientRect();
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
  }

  #placeCursor() {
    const radius = this.tool?.cursor?.() ?? 0;
    const inside = this.surface.matches(":hover, :focus");
    this.cursor.hidden = !radius || !inside;
    if (this.cursor.hidden) return;
    const style = this.cursor.style;
    style.left = `${100 * this.#point[0]}%`;
    style.top = `${100 * this.#point[1]}%`;
    style.width = `${200 * radius}%`;
  }
}
