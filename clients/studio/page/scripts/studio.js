// What all screens share: the link, the model, the picture in work, the easel and what it stands on.

import { h } from "./dom.js";
import { Easel } from "./easel.js";
import { Inside } from "./inside.js";
import { Failure, Link } from "./link.js";
import { Entry, Pictures, distance } from "./pictures.js";
import { Results } from "./results.js";
import { Tools } from "./tools.js";

/** Tells `models` when the service has others, and `model` when another one is chosen. */
export class Studio extends EventTarget {
  #units = new Map();
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
    this.tools = new Tools(this);
    const blank = h("button", { type: "button", onclick: () => this.open(null) }, "Begin blank");
    this.easel.empty.append(...this.tools.invitation(blank));
    this.bench = h("div", { class: "bench" }, this.easel.element, this.results.element);
    this.pictures.addEventListener("change", () => this.#changed());
    this.#changed();
  }

  // Models.

  async loadModels() {
    const response = await fetch("models");
    const found = await response.json();
    if (!response.ok) throw new Failure(found);
    this.models = found.models;
    this.dispatchEvent(new Event("models"));
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
    if (!present) return;
    const { blob, name: own } = present.photo ?? { blob: present.blob, name: "" };
    await this.open(blob, own);
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
      this.pictures.push(entry);
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

  /** An unfinished picture: on the easel, in the bars, and how far from where it started, of the radius of an L2 ball. */
  async preview(blob, { start = null, radius = null, compose = (bitmap) => bitmap } = {}) {
    const run = this.#run;
    const bitmap = await createImageBitmap(blob);
    if (run !== this.#run) return;
    const shown = compose(bitmap);
    this.easel.show(shown);
    this.inside.classify(this.model, blob);
    const way = start && radius !== null ? distance(start, shown) : null;
    if (way !== null) this.inside.ball(way, radius, { about: true });
  }

  /** The picture as the classifier sees it, where it is another one: a sketch, or a whole photo. */
  async squared(entry) {
    if (entry.bitmap.width === this.size && entry.bitmap.height === this.size) return entry;
    const { blobs } = await this.link.order({ do: "square", ...this.frame }, [entry.blob]);
    return Entry.of(new Blob(blobs, { type: "image/png" }));
  }

  #changed() {
    this.#run += 1;
    this.failure.hidden = true;
    const { present } = this.pictures;
    if (!this.tools.held) this.easel.show(present?.bitmap ?? null);
    this.tools.refresh();
    this.results.refresh();
    if (!present || !this.model) return;
    this.inside.show(present.inside);
    this.inside.classify(this.model, present.blob);
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
