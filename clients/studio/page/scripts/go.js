// The button that begins something, and the one that stops it while it is under way.

import { h } from "./dom.js";

export class Go {
  #busy = false;

  constructor(verb, { onstart, onstop }) {
    this.start = h("button", { type: "button", class: "primary wide", onclick: onstart }, verb);
    this.stop = h("button", { type: "button", class: "wide", hidden: true }, "Stop");
    this.stop.addEventListener("click", ({ detail }) => detail < 2 && onstop()); // it stands where a double click began
    this.element = h("div", { class: "go" }, this.start, this.stop);
  }

  get busy() {
    return this.#busy;
  }

  set busy(busy) {
    const focused = this.element.contains(document.activeElement);
    this.#busy = busy;
    this.start.hidden = busy;
    this.stop.hidden = !busy;
    if (focused) (busy ? this.stop : this.start).focus();
  }

  /** Busy until the work has ended; if it fails, `failures` shows why. */
  async during(work, failures) {
    failures.clear();
    this.busy = true;
    try {
      await work();
    } catch (failure) {
      failures.show(failure);
    }
    this.busy = false;
  }

  set possible(possible) {
    this.start.disabled = !possible;
  }
}
