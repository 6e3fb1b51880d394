// Sketch to image: draw in colours, and have the sketch become a picture of a class; then sketch on.

import { h } from "../dom.js";
import { Advanced } from "../advanced.js";
import { ClassChooser } from "../choosers.js";
import { Segments, Slider } from "../fields.js";
import { icon } from "../icons.js";
import { Entry, centred, file } from "../pictures.js";
import { OneShot } from "./oneshot.js";

const SIDE = 512;
const COLOURS = {
  Black: "#1b1b1b",
  Grey: "#8a8a8a",
  White: "#ffffff",
  Brown: "#6b4423",
  Red: "#c0392b",
  Orange: "#e28a2b",
  Yellow: "#f2d04b",
  Green: "#4e8f3a",
  "Light green": "#9cc66b",
  Blue: "#2f5f9f",
  "Sky blue": "#9cc7ea",
  Skin: "#e8b98f",
};
/** Of 255 for each channel together: colours so near are one area to fill. */
const NEAR = 60;

export class Sketch extends OneShot {
  static id = "sketch";
  static name = "Sketch";
  static title = "Sketch to image";
  static hint = "Draw the coarse shapes, choose what it should be, and watch it become a picture. Then sketch on.";
  static picture = "sketch";

  square = true;

  #last = null;

  constructor(studio) {
    const chooser = new ClassChooser("Make it a");
    const tools = new Segments(
      "Tool",
      [
        ["brush", "Brush", icon("brush")],
        ["eraser", "Eraser", icon("eraser")],
        ["fill", "Fill", icon("fill")],
      ],
      { onchange: () => studio.easel.refresh() },
    );
    const size = new Slider("brush", "Brush size", {
      min: 4,
      max: 160,
      step: 1,
      value: 36,
      show: (value) => `${Math.round(value / 5.12)} %`,
      onchange: () => studio.easel.refresh(),
    });
    const own = h("input", {
      type: "color",
      value: "#8e5bb5",
      "aria-label": "Another colour",
      title: "Another colour",
    });
    const swatches = Object.entries(COLOURS).map(([name, value]) => {
      const swatch = h("span", { class: "swatch" });
      swatch.style.background = value;
      return h(
        "label",
        { title: name },
        h("input", { type: "radio", name: "colour", value, "aria-label": name, checked: name === "Brown" }),
        swatch,
      );
    });
    const colours = h(
      "fieldset",
      { class: "swatches" },
      h("legend", { class: "sr" }, "Colour"),
      swatches,
      h(
        "label",
        { class: "own", title: "Another colour" },
        h("input", { type: "radio", name: "colour", value: "own", "aria-label": "The other colour" }),
        own,
      ),
    );
    own.addEventListener("input", () => (own.previousSibling.checked = true));
    const renew = h(
      "button",
      { type: "button", class: "wide", onclick: () => this.#renew() },
      icon("blank"),
      h("span", {}, "New sketch"),
    );
    const advanced = new Advanced();
    super(
      studio,
      "Make it a picture",
      [chooser, ...advanced.all],
      tools.element,
      colours,
      size.element,
      renew,
      chooser.element,
      advanced.element,
    );
    Object.assign(this, { chooser, tools, colours, own, size, advanced });
    this.resizedByKeys(size);
    this.canvas = new OffscreenCanvas(SIDE, SIDE);
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.paper = new OffscreenCanvas(SIDE, SIDE);
  }

  useModel(model) {
    this.chooser.model = model;
    this.advanced.use(model, "sketch_to_image");
  }

  enter() {
    super.enter();
    if (!this.studio.pictures.present) this.#renew();
  }

  changed() {
    super.changed();
    const { present } = this.studio.pictures;
    if (present) this.#load(present.bitmap, this.context);
    if (present?.report || present?.photo) this.#load(present.bitmap, this.paper.getContext("2d"));
    const tool = {
      cursor: () => (this.tools.chosen === "fill" ? 0 : this.size.number / 2 / SIDE),
      start: (point) => this.#start(point),
      move: (point) => this.#line(point),
      end: () => this.#end(),
    };
    this.studio.easel.use(present ? tool : null, "Draw in the chosen colour.");
  }

  async ask() {
    const { present } = this.studio.pictures;
    const task = { task: "sketch_to_image", target: this.chooser.target, ...this.advanced.values };
    return {
      task,
      files: { image: present.blob },
      start: await this.studio.squared(present),
    };
  }

  get colour() {
    const { value } = this.colours.querySelector("input[type=radio]:checked");
    return value === "own" ? this.own.value : value;
  }

  #load(bitmap, context) {
    context.imageSmoothingEnabled = document.documentElement.classList.contains("smooth");
    context.drawImage(centred(bitmap), 0, 0, SIDE, SIDE);
  }

  async #renew() {
    for (const context of [this.context, this.paper.getContext("2d")]) {
      context.fillStyle = "#ffffff";
      context.fillRect(0, 0, SIDE, SIDE);
    }
    this.studio.pictures.push(await Entry.of(await file(this.canvas)));
  }

  #start(point) {
    if (this.busy) this.stop();
    this.#last = point;
    if (this.tools.chosen === "fill") this.#fill(point);
    else this.#line(point);
  }

  #line(point) {
    if (this.tools.chosen === "fill") return;
    const { context } = this;
    Object.assign(context, { lineWidth: this.size.number, lineCap: "round", lineJoin: "round" });
    context.strokeStyle = this.tools.chosen === "eraser" ? context.createPattern(this.paper, "no-repeat") : this.colour;
    context.beginPath();
    context.moveTo(...this.#last.map((share) => share * SIDE));
    context.lineTo(...point.map((share) => share * SIDE + 0.01));
    context.stroke();
    this.#last = point;
    this.studio.easel.show(this.canvas);
  }

  async #end() {
    this.studio.pictures.push(await Entry.of(await file(this.canvas)));
  }

  /** The area of one colour around a point. */
  #fill(point) {
    const image = this.context.getImageData(0, 0, SIDE, SIDE);
    const cells = new Uint32Array(image.data.buffer);
    const [x, y] = point.map((share) => Math.min(SIDE - 1, Math.max(0, Math.floor(share * SIDE))));
    const from = [...image.data.slice(4 * (y * SIDE + x), 4 * (y * SIDE + x) + 3)];
    const [r, g, b] = this.colour.match(/\w\w/g).map((pair) => parseInt(pair, 16));
    const to = (255 << 24) | (b << 16) | (g << 8) | r;
    const near = (cell) =>
      Math.abs((cell & 255) - from[0]) +
        Math.abs(((cell >> 8) & 255) - from[1]) +
        Math.abs(((cell >> 16) & 255) - from[2]) <=
      NEAR;
    const seen = new Uint8Array(cells.length);
    const open = [y * SIDE + x];
    while (open.length) {
      const cell = open.pop();
      if (seen[cell] || !near(cells[cell])) continue;
      seen[cell] = 1;
      cells[cell] = to;
      const column = cell % SIDE;
      if (column > 0) open.push(cell - 1);
      if (column < SIDE - 1) open.push(cell + 1);
      if (cell >= SIDE) open.push(cell - SIDE);
      if (cell < cells.length - SIDE) open.push(cell + SIDE);
    }
    this.context.putImageData(image, 0, 0);
    this.studio.easel.show(this.canvas);
  }
}
