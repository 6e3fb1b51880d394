// What all screens share: the link, the model, the picture in work, the easel and what it stands on.

import { h } from "./dom.js";
import { Easel } from "./easel.js";
import { Segments } from "./fields.js";
import { icon } from "./icons.js";
import { Inside } from "./inside.js";
import { Failure, Link } from "./link.js";
import { Entry, Pictures, distance } from "./pictures.js";
import { Results } from "./results.js";

const SMOOTH = "studio-smooth";

/** Tells `model` when another one is chosen. */
export class Studio extends EventTarget {
  #units = new Map();
  #held = false;
  #run = 0;

  constructor(limits) {
    super();
    this.limits = limits;
    this.link = new Link();
    this.pictures = new Pictures();
    this.easel = new Easel();
    this.inside = new Inside(this.link);
    this.models = [];
    this.model = null;
    this.toast = h("p", { class: "toast", role: "status", hidden: true });
    this.failure = h("p", { class: "failure", role: "alert", hidden: true });
    this.lost = h("p", { class: "failure lost", role: "status", hidden: true });
    this.results = new Results({
      link: this.link,
      present: () => this.pictures.present,
      notify: (text) => this.notify(text),
    });
    this.#furnish();
    this.pictures.addEventListener("change", () => this.#changed());
    this.#changed();
  }

  // Models.

  async loadModels() {
    const response = await fetch("models");
    const found = await response.json();
    if (!response.ok) throw new Failure(found);
    this.models = found.models;
    const chosen = this.model?.name ?? found.default;
    const model = this.models.find(({ name }) => name === chosen) ?? this.models[0];
    if (model) await this.useModel(model.name);
  }

  async useModel(name) {
    const model = this.models.find((each) => each.name === name);
    const same = this.model && this.model.name === model.name && this.model.version === model.version;
    this.model = model;
    if (same) return;
    this.dispatchEvent(new Event("model"));
    const { present } = this.pictures;
    if (present) await this.open(present.photo?.blob ?? present.blob, present.photo?.name ?? "");
  }

  /** The model's features, each with where its pictures are. */
  units({ name, version }) {
    const key = `${name} ${version}`;
    const at = `models/${encodeURIComponent(name)}/${version}/units`;
    if (!this.#units.has(key)) {
      const found = fetch(at).then(async (response) => {
        const units = await response.json();
        if (!response.ok) throw new Failure(units);
        return units.map((unit) => ({ ...unit, picture: unit.pictured ? `${at}/${unit.unit}` : null }));
      });
      found.catch(() => this.#units.delete(key));
      this.#units.set(key, found);
    }
    return this.#units.get(key);
  }

  get size() {
    return this.model?.size ?? 1;
  }

  /** What orders about the present picture have in common. */
  get frame() {
    return { model: this.model.name, size: this.size, fit: "crop" };
  }

  // The picture.

  /** Begin with a photo; the service says what is wrong with it. No photo: flat grey. */
  async open(photo, name = photo?.name ?? "") {
    this.failure.hidden = true;
    try {
      if (!this.model) throw new Failure({ message: "The gateway has not told its classifiers yet; wait a moment." });
      if (photo && photo.size > this.limits.photo_bytes) {
        const most = Math.floor(this.limits.photo_bytes / 2 ** 20);
        throw new Failure({
          field: "image",
          message: `has ${Math.ceil(photo.size / 2 ** 20)} MiB; open one of at most ${most}.`,
        });
      }
      const { blobs } = await this.link.order({ do: "square", ...this.frame }, photo ? [photo] : []);
      const entry = await Entry.of(new Blob(blobs, { type: "image/png" }));
      if (name) entry.photo = await decoded(photo, name);
      this.pictures.open(entry);
    } catch (failure) {
      this.fail(failure);
    }
  }

  fail(failure) {
    if (failure.cancelled) return;
    this.failure.textContent = failure.message;
    this.failure.hidden = false;
  }

  notify(text) {
    clearTimeout(this.toasting);
    this.toast.textContent = text;
    this.toast.hidden = false;
    this.toasting = setTimeout(() => (this.toast.hidden = true), 4000);
  }

  // Showing what is under way.

  /** Something new is under way; frames of what was before are not shown any more. */
  begin(target) {
    this.#run += 1;
    this.inside.restart(target);
  }

  /** Back to the present picture. */
  settle() {
    this.#run += 1;
    this.easel.show(this.pictures.present?.bitmap ?? null);
  }

  /** An unfinished picture: on the easel, in the bars, and how far it is from where it started. */
  async preview(blob, { start = null, epsilon = 0, compose = (bitmap) => bitmap } = {}) {
    const run = this.#run;
    const bitmap = await createImageBitmap(blob);
    if (run !== this.#run) return;
    const shown = compose(bitmap);
    this.easel.show(shown);
    this.inside.classify(this.model, blob);
    const way = start && distance(start, shown);
    if (way !== null) this.inside.ball(way, epsilon, { about: true });
  }

  /** The picture as the classifier sees it, where it is another one: a sketch, or a whole photo. */
  async squared(entry) {
    if (entry.bitmap.width === this.size && entry.bitmap.height === this.size) return entry;
    const { blobs } = await this.link.order({ do: "square", ...this.frame }, [entry.blob]);
    return Entry.of(new Blob(blobs, { type: "image/png" }));
  }

  #changed() {
    this.#run += 1;
    const { present, undoable, redoable } = this.pictures;
    if (!this.#held) this.easel.show(present?.bitmap ?? null);
    this.undo.disabled = !undoable;
    this.redo.disabled = !redoable;
    this.before.disabled = !undoable;
    this.results.refresh();
    if (!present || !this.model) return;
    this.inside.show(present.inside);
    this.inside.classify(this.model, present.blob);
  }

  // Furniture.

  #furnish() {
    this.chooser = h("input", {
      type: "file",
      class: "sr",
      accept: "image/*",
      tabIndex: -1,
      "aria-label": "Photo",
      onchange: () => {
        const [photo] = this.chooser.files;
        if (photo) this.open(photo);
        this.chooser.value = "";
      },
    });
    const button = (picture, text, act, more = {}) =>
      h("button", { type: "button", class: "quiet", onclick: act, ...more }, icon(picture), h("span", {}, text));
    this.undo = button("undo", "Undo", () => this.pictures.undo(), { title: "Undo (Ctrl+Z)" });
    this.redo = button("redo", "Redo", () => this.pictures.redo(), { title: "Redo (Ctrl+Shift+Z)" });
    this.before = button("before", "Before", null, { title: "Hold to see the picture before the last change" });
    this.#hold();
    this.smooth = new Segments(
      "Enlarge",
      [
        ["crisp", "Crisp"],
        ["smooth", "Smooth"],
      ],
      { onchange: (how) => this.#enlarge(how) },
    );
    this.#enlarge(localStorage.getItem(SMOOTH) ?? "smooth");
    this.openButton = button("open", "Open", () => this.chooser.click(), {
      title: "Open a photo, or drop one anywhere",
    });
    this.blankButton = button("blank", "Blank", () => this.open(null), { title: "Begin with a flat grey picture" });
    this.tools = h(
      "div",
      { class: "tools", role: "toolbar", "aria-label": "Picture" },
      this.openButton,
      this.blankButton,
      h("span", { class: "divider" }),
      this.undo,
      this.redo,
      this.before,
      h("span", { class: "divider" }),
      this.smooth.element,
    );
    this.easel.empty.append(
      h("p", { class: "empty-title" }, "No picture yet"),
      h("p", {}, "Drop a photo here, or paste one."),
      h(
        "div",
        { class: "empty-actions" },
        h("button", { type: "button", class: "primary", onclick: () => this.chooser.click() }, "Open a photo"),
        h("button", { type: "button", onclick: () => this.open(null) }, "Begin blank"),
      ),
    );
    this.bench = h("div", { class: "bench" }, this.easel.element, this.results.element);
  }

  #hold() {
    const show = (held) => {
      this.#held = held;
      const { present, before } = this.pictures;
      this.easel.show((held ? before : present)?.bitmap ?? null);
      this.easel.element.classList.toggle("before", held);
      this.before.setAttribute("aria-pressed", held);
    };
    this.before.setAttribute("aria-pressed", "false");
    this.before.addEventListener("pointerdown", () => show(true));
    for (const end of ["pointerup", "pointerleave", "pointercancel", "blur"]) {
      this.before.addEventListener(end, () => this.#held && show(false));
    }
    this.before.addEventListener("keydown", (event) => {
      if ([" ", "Enter"].includes(event.key)) show(true);
    });
    this.before.addEventListener("keyup", () => show(false));
  }

  #enlarge(how) {
    this.smooth.choose(how);
    localStorage.setItem(SMOOTH, how);
    document.documentElement.classList.toggle("smooth", how === "smooth");
  }
}

/** The visitor's own file, where the browser can show it: what whole photos are made from. */
async function decoded(blob, name) {
  try {
    const bitmap = await createImageBitmap(blob);
    return { blob, name, width: bitmap.width, height: bitmap.height };
  } catch {
    return { blob, name, width: 0, height: 0 };
  }
}
