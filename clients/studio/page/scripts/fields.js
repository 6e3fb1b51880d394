// Controls with their labels, and what the service says of them.

import { fresh, h } from "./dom.js";

/** Seeds are drawn below it: short enough to be read out. */
const MOST_SEED = 100_000;

/** A label, a control and room for what is wrong with it. `name` is what the service calls the parameter. */
class Field {
  constructor(name, label, control, note = "") {
    this.name = name;
    this.control = control;
    control.id ||= fresh(name);
    const error = fresh("error");
    this.value = h("output", { class: "field-value", for: control.id });
    this.error = h("p", { class: "field-error", id: error, role: "alert", hidden: true });
    control.setAttribute("aria-describedby", error);
    this.element = h(
      "div",
      { class: "field", data: { field: name } },
      h("div", { class: "field-head" }, h("label", { htmlFor: control.id }, label), this.value),
      control,
      note && h("p", { class: "field-note" }, note),
      this.error,
    );
    control.addEventListener("input", () => this.fail(""));
  }

  fail(message) {
    this.error.textContent = message;
    this.error.hidden = !message;
    if (message) this.control.setAttribute("aria-invalid", "true");
    else this.control.removeAttribute("aria-invalid");
  }
}

/** A number between two others; `show` writes it. */
export class Slider extends Field {
  constructor(name, label, { min, max, step, value, show = String, onchange }) {
    super(name, label, h("input", { type: "range", min, max, step, value }));
    this.show = show;
    this.control.addEventListener("input", () => {
      this.#tell();
      onchange?.();
    });
    this.#tell();
  }

  get number() {
    return this.control.valueAsNumber;
  }

  set(value) {
    this.control.value = value;
    this.#tell();
  }

  limit(min, max) {
    Object.assign(this.control, { min, max });
    this.#tell();
  }

  #tell() {
    this.value.textContent = this.show(this.number);
    this.control.setAttribute("aria-valuetext", this.value.textContent);
  }
}

/** A number, or nothing for the default, which is shown. */
export class NumberField extends Field {
  constructor(name, label, { step = "any", note = "" } = {}) {
    super(name, label, h("input", { type: "number", step, inputMode: step === "1" ? "numeric" : "decimal" }), note);
  }

  set usual(value) {
    this.control.placeholder = value === undefined ? "" : String(Number(value.toPrecision(4)));
  }

  /** Undefined for the default. Not a number, the service is told so, and says what is wrong. */
  get number() {
    return Number.isNaN(this.control.valueAsNumber) ? undefined : this.control.valueAsNumber;
  }
}

export class Select extends Field {
  constructor(name, label, { options = [], onchange, note = "" } = {}) {
    super(name, label, h("select"), note);
    this.fill(options);
    this.control.addEventListener("change", () => {
      this.fail("");
      onchange?.(this.chosen);
    });
  }

  /** [value, text] each; what was chosen stays where it can. */
  fill(options) {
    const chosen = this.chosen;
    this.control.replaceChildren(...options.map(([value, text]) => h("option", { value }, text)));
    if (options.some(([value]) => value === chosen)) this.control.value = chosen;
  }

  get chosen() {
    return this.control.value;
  }
}

export class Check extends Field {
  constructor(name, label, { checked = false, onchange, note = "" } = {}) {
    super(name, label, h("input", { type: "checkbox", checked }), note);
    this.element.classList.add("field-check");
    this.control.addEventListener("change", () => onchange?.(this.checked));
  }

  get checked() {
    return this.control.checked;
  }
}

/** A few choices side by side: [value, text, icon?] each. */
export class Segments {
  constructor(label, choices, { onchange } = {}) {
    const name = fresh("segments");
    this.inputs = choices.map(([value], i) => h("input", { type: "radio", name, value, checked: i === 0 }));
    this.element = h(
      "fieldset",
      { class: "segments" },
      h("legend", { class: "sr" }, label),
      choices.map(([, text, picture], i) => h("label", {}, this.inputs[i], h("span", {}, picture, text))),
    );
    this.element.addEventListener("change", () => onchange?.(this.chosen));
  }

  get chosen() {
    return this.inputs.find((input) => input.checked).value;
  }

  choose(value) {
    for (const input of this.inputs) input.checked = input.value === value;
  }

  /** Leave out those that are of no use. */
  allow(values) {
    for (const input of this.inputs) input.closest("label").hidden = !values.includes(input.value);
    if (!values.includes(this.chosen)) this.choose(values[0]);
  }
}

/** The descent's parameters, folded away. */
export class Advanced {
  constructor({ seed = true } = {}) {
    this.fields = [
      new NumberField("steps", "Steps", { step: "1" }),
      new NumberField("epsilon", "Epsilon", {
        note: "Radius of the ball around the start, in pixel values of 0 to 1.",
      }),
      new NumberField("step_size", "Step size"),
      new Select("norm", "Norm", {
        options: [
          ["", "the card's"],
          ["l2", "L2"],
          ["linf", "L-inf"],
          ["none", "no ball"],
        ],
      }),
    ];
    if (seed) this.fields.push(new NumberField("seed", "Seed", { step: "1", note: "Empty: another one each time." }));
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
        this.fields.map((field) => field.element),
        this.exact.element,
      ),
    );
  }

  get all() {
    return [...this.fields, this.exact];
  }

  set defaults(defaults) {
    for (const field of this.fields) if (field.name in defaults && "usual" in field) field.usual = defaults[field.name];
  }

  /** As the task's JSON has them. */
  get values() {
    const values = { exact: this.exact.checked };
    for (const field of this.fields) {
      const value = field.control.tagName === "SELECT" ? field.chosen || undefined : field.number;
      if (value !== undefined) values[field.name] = value;
    }
    values.seed ??= Math.floor(Math.random() * MOST_SEED);
    return values;
  }
}

/** Shows failures next to the field that they are about, or else in a place of the panel. */
export class Failures {
  constructor(fields) {
    this.fields = fields;
    this.element = h("p", { class: "failure", role: "alert", hidden: true });
  }

  clear() {
    this.element.hidden = true;
    for (const field of this.fields) field.fail("");
  }

  show(failure) {
    if (failure.cancelled) return;
    const field = this.fields.find(({ name }) => name === failure.field);
    if (!field) {
      this.element.textContent = failure.message;
      this.element.hidden = false;
      return;
    }
    field.fail(failure.message);
    field.control.closest("details")?.setAttribute("open", "");
    field.control.focus();
  }
}
