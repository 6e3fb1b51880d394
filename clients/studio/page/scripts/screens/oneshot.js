// A task that is asked for by a button: its order, its progress, its result.

import { h } from "../dom.js";
import { Entry } from "../pictures.js";
import { Screen } from "./screen.js";

const FRAMES = 24;

export class OneShot extends Screen {
  #order = null;

  constructor(studio, verb, fields, ...parts) {
    const go = h("button", { type: "button", class: "primary wide" }, verb);
    const stop = h("button", { type: "button", hidden: true, class: "wide" }, "Stop");
    const progress = h("progress", { max: 1, value: 0, hidden: true, "aria-label": "Progress" });
    const status = h("p", { class: "status", role: "status" });
    super(studio, fields, ...parts, h("div", { class: "go" }, go, stop, progress, status));
    Object.assign(this, { go, stopButton: stop, progress, status });
    go.addEventListener("click", () => this.run());
    stop.addEventListener("click", () => this.stop());
  }

  get busy() {
    return Boolean(this.#order);
  }

  stop() {
    this.#order?.cancel();
  }

  /** { task, files: {image?, mask?}, options?, own?, start?, compose? } of the order. Raises Failures. */
  async ask() {
    throw new Error("every screen asks for something");
  }

  async run() {
    if (this.busy) return;
    this.failures.clear();
    try {
      await this.#make(await this.ask());
    } catch (failure) {
      this.studio.settle();
      this.failures.show(failure);
    }
    this.#order = null;
    this.#turn(false);
  }

  async #make({ task, files, options = {}, own = "", start = null, compose }) {
    const { studio } = this;
    const frames = start ? [start.blob] : [];
    const epsilon = task.epsilon ?? studio.model.defaults[task.task].epsilon;
    studio.begin(task.target ?? "");
    this.#turn(true, "Waiting…");
    const head = { do: "make", model: studio.model.name, options, task, frames: FRAMES, with: Object.keys(files) };
    this.#order = studio.link.order(head, Object.values(files), {
      onqueued: ({ position }) => (this.status.textContent = position ? `${position} ahead in the queue` : "Waiting…"),
      onframe: async (event) => {
        this.progress.value = event.step / event.steps;
        this.status.textContent = `Step ${event.step} of ${event.steps}`;
        if (!this.here || !this.busy) return;
        studio.inside.add(event.loss);
        if (!event.blob) return;
        frames.push(event.blob);
        await studio.preview(event.blob, { start: start?.bitmap, epsilon, compose });
      },
    });
    const { report, blobs } = await this.#order;
    this.#order = null;
    const blob = new Blob(blobs, { type: "image/png" });
    const recipe = {
      model: studio.model.name,
      picture: files.image ?? null,
      own,
      edits: [{ report, mask: files.mask }],
    };
    const entry = await Entry.of(blob, { recipe, report, frames: options.paste_back ? frames : [...frames, blob] });
    await this.done(entry, options);
  }

  /** What becomes of the result. */
  async done(entry) {
    this.studio.pictures.push(entry);
  }

  #turn(busy, text = "") {
    this.go.hidden = busy;
    this.stopButton.hidden = !busy;
    this.progress.hidden = !busy;
    this.progress.value = 0;
    this.status.textContent = text;
  }
}
