// The descent's parameters, folded away.

import { h } from "./dom.js";
import { Check, NumberField, Select } from "./fields.js";

/** Seeds are drawn below it: short enough to be read out. */
const MOST_SEED = 100_000;

/** `more` are further fields, of the screen's own. */
export class Advanced {
  #defaults = {};
  #lengths = {};

  constructor(...more) {
    this.norm = new Select("norm", "Norm", {
      options: [
        ["", "the card's"],
        ["l2", "L2"],
        ["linf", "L-inf"],
        ["none", "no ball"],
      ],
      onchange: () => this.#tell(),
    });
    this.fields = [
      new NumberField("steps", "Steps", { step: "1" }),
      new NumberField("epsilon", "Epsilon", {
        note: "Radius of the ball around the start, in pixel values of 0 to 1.",
      }),
      new NumberField("step_size", "Step size"),
      new NumberField("seed", "Seed", { step: "1", note: "Empty: another one each time." }),
    ];
    this.exact = new Check("exact", "Exactly repeatable", {
      checked: true,
      note: "Computed alone, so that the same command gives the same bits on the same kind of machine.",
    });
    this.element = h(
      "details",
      { class: "advanced" },
      h("summary", {}, "Advanced"),
      h(
        "div",
        { class: "fields" },
        more.map((field) => field.element),
        this.fields.map((field) => field.element),
        this.norm.element,
        this.exact.element,
      ),
    );
  }

  get all() {
    return [...this.fields, this.norm, this.exact];
  }

  use(model, task) {
    this.#defaults = model.defaults[task];
    this.#lengths = model.lengths[task];
    this.#tell();
  }

  /** What the card says, with lengths as the chosen norm has them. */
  get usual() {
    return { ...this.#defaults, ...this.#lengths[this.norm.chosen] };
  }

  /** As the task's JSON has them. Raises a Failure. */
  get values() {
    const values = { exact: this.exact.checked };
    if (this.norm.chosen) values.norm = this.norm.chosen;
    for (const { name, number } of this.fields) if (number !== undefined) values[name] = number;
    values.seed ??= Math.floor(Math.random() * MOST_SEED);
    return values;
  }

  #tell() {
    const { usual } = this;
    for (const field of this.fields) field.usual = usual[field.name];
  }
}
