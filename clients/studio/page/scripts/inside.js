// Look inside: what the classifier sees, how the loss falls, and how much of the ball is used.

import { h, svg, throttled } from "./dom.js";

const [WIDTH, HEIGHT] = [240, 72];

export class Inside {
  #asking = null;
  #target = "";

  constructor(link, { bars = 10 } = {}) {
    this.link = link;
    this.mostBars = bars;
    this.bars = h("ol", { class: "bars", "aria-label": "Class probabilities" });
    this.line = svg("polyline", { class: "curve-line", points: "" });
    this.curve = svg(
      "svg",
      { class: "curve", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
      this.line,
    );
    this.loss = h("output", { class: "field-value" });
    this.meter = h("meter", { min: 0, max: 1, value: 0, "aria-label": "Distance used of the ball" });
    this.used = h("output", { class: "field-value" });
    this.curveBox = h("div", {}, heading("Loss", this.loss), this.curve);
    this.ballBox = h("div", {}, heading("Ball used", this.used), this.meter);
    this.element = h(
      "section",
      { class: "inside", "aria-label": "Look inside" },
      h("h2", {}, "Look inside"),
      h("div", {}, heading("What the classifier sees"), this.bars),
      this.curveBox,
      this.ballBox,
    );
    this.classify = throttled(250, (model, blob) => this.#classify(model, blob));
    this.clear();
  }

  clear() {
    this.bars.replaceChildren(h("li", { class: "bars-none" }, "No picture yet."));
    this.restart("");
  }

  /** Something new is under way. */
  restart(target) {
    this.#target = target;
    this.losses = [];
    this.#draw();
    this.ball(null);
  }

  /** All of what is done. */
  show({ target, losses, ball }) {
    this.restart(target);
    this.add(...losses);
    if (ball) this.ball(...ball);
  }

  /** Further points of the loss curve. */
  add(...losses) {
    this.losses.push(...losses);
    this.#draw();
  }

  /** L2 distance of the picture from its start, and the ball's radius; no distance where there is no such ball. */
  ball(distance, epsilon, { about = false } = {}) {
    this.ballBox.hidden = distance === null;
    if (distance === null) return;
    this.used.textContent = `L2 ${about ? "≈ " : ""}${distance.toFixed(2)} of ${Number(epsilon.toPrecision(3))}`;
    this.meter.value = epsilon > 0 ? Math.min(1, distance / epsilon) : 0;
  }

  async #classify(model, blob) {
    if (this.#asking) {
      this.#asking.next = [model, blob];
      return;
    }
    this.#asking = {};
    try {
      const { classes } = await this.link.order({ do: "classify", model: model.name, fit: "crop" }, [blob], {
        once: true,
      });
      this.#show(classes);
    } catch {
      // The bars are of no use to who has other trouble.
    }
    const { next } = this.#asking;
    this.#asking = null;
    if (next) this.classify(...next);
  }

  #show(classes) {
    const shown = classes.slice(0, this.mostBars);
    const target = classes.find(([name]) => name === this.#target);
    if (target && !shown.includes(target)) shown[shown.length - 1] = target;
    this.bars.replaceChildren(
      ...shown.map(([name, probability]) => {
        const bar = h("span", { class: "bar" });
        bar.style.width = `${100 * probability}%`;
        const text = `${(100 * probability).toFixed(probability < 0.1 ? 1 : 0)} %`;
        const marked = name === this.#target ? "bars-row target" : "bars-row";
        return h(
          "li",
          { class: marked },
          h("span", { class: "bars-name", title: name }, name),
          h("span", { class: "bars-track" }, bar),
          h("span", { class: "bars-value" }, text),
        );
      }),
    );
  }

  #draw() {
    const { losses } = this;
    this.curveBox.hidden = losses.length < 2;
    if (losses.length < 2) return;
    const [low, high] = [Math.min(...losses), Math.max(...losses)];
    const points = losses.map((loss, i) => {
      const x = (WIDTH * i) / (losses.length - 1);
      const y = HEIGHT - 4 - ((HEIGHT - 8) * (loss - low)) / (high - low || 1);
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    });
    this.line.setAttribute("points", points.join(" "));
    const [first, last] = [losses[0], losses.at(-1)].map(short);
    this.loss.textContent = `${first} → ${last}`;
    this.curve.setAttribute("aria-label", `Loss over ${losses.length - 1} steps, from ${first} to ${last}`);
  }
}

/** A loss, to be read at a glance. */
function short(loss) {
  if (loss !== 0 && Math.abs(loss) < 0.001) return loss < 0 ? "> −0.001" : "< 0.001";
  return loss.toFixed(Math.abs(loss) < 0.1 ? 3 : 2).replace("-", "−");
}

function heading(text, ...more) {
  return h("div", { class: "field-head" }, h("h3", {}, text), ...more);
}
