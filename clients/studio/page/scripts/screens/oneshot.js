// A task that is asked for by a button: its progress, its result.

import { h } from "../dom.js";
import { Go } from "../go.js";
import { making, radius } from "../making.js";
import { Screen } from "./screen.js";

export class OneShot extends Screen {
  #order = null;
  #stopped = false;

  constructor(studio, verb, fields, ...parts) {
    const go = new Go(verb, { onstart: () => this.run(), onstop: () => this.stop() });
    const progress = h("progress", { max: 1, value: 0, hidden: true, "aria-label": "Progress" });
    const status = h("p", { class: "status", role: "status" });
    go.element.append(progress, status);
    super(studio, fields, ...parts, go.element);
    Object.assign(this, { go, progress, status });
  }

  get busy() {
    return this.go.busy;
  }

  changed() {
    this.go.possible = Boolean(this.studio.pictures.present);
  }

  stop() {
    this.#stopped = true;
    this.#order?.cancel();
  }

  /** { task, files: {image?, mask?}, options?, own?, start?, compose? } of the order. Raises Failures. */
  async ask() {
    throw new Error("every screen asks for something");
  }

  async run() {
    if (this.busy) return;
    this.failures.clear();
    this.#stopped = false;
    this.#turn(true, "Waiting…");
    try {
      const asked = await this.ask();
      if (!this.#stopped) await this.#make(asked);
    } catch (failure) {
      this.studio.settle();
      this.failures.show(failure);
    }
    this.#order = null;
    this.#turn(false);
  }

  async #make({ task, compose, ...given }) {
    const { studio } = this;
    studio.begin(task.target ?? "");
    const previewed = { start: given.start?.bitmap, radius: radius(task, studio.model), compose };
    this.#order = making(studio.link, studio.model, task, {
      ...given,
      onqueued: ({ position }) => (this.status.textContent = position ? `${position} ahead in the queue` : "Waiting…"),
      onframe: ({ step, steps, loss, blob }) => {
        if (!this.here || !this.busy) return;
        this.progress.value = step / steps;
        this.status.textContent = `Step ${step} of ${steps}`;
        studio.inside.add(loss);
        if (blob) studio.preview(blob, previewed);
      },
    });
    studio.pictures.push(await this.#order);
  }

  #turn(busy, text = "") {
    this.go.busy = busy;
    this.progress.hidden = !busy;
    this.progress.value = 0;
    this.status.textContent = text;
  }
}
