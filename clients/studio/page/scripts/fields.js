// Controls with their labels, and what the service says of them.

import { fresh, h } from "./dom.js";
import { Failure } from "./link.js";

/** What is wrong with a control, below it and said of it. */
export class Complaint {
  constructor(control) {
    this.control = control;
    this.element = h("p", { class: "field-error", id: fresh("error"), role: "alert", hidden: true });
    control.setAttribute("aria-describedby", this.element.id);
  }

  /** Nothing is wrong where there is no message. */
  show(message) {
    this.element.textContent = message;
    this.element.hidden = !message;
    if (message) this.control.setAttribute("aria-invalid", "true");
    else this.control.removeAttribute("aria-invalid");
  }
}

/** A label, a control and room for what is wrong with it. `name` is what the service calls the parameter. */
class Field {
  constructor(name, label, control, note = "") {
    this.name = name;
    this.control = control;
    control.id ||= fresh(name);
    this.value = h("output", { class: "field-value", for: control.id });
    this.complaint = new Complaint(control);
    this.element = h(
      "div",
      { class: "field", data: { field: name } },
      h("div", { class: "field-head" }, h("label", { htmlFor: control.id }, label), this.value),
      control,
      note && h("p", { class: "field-note" }, note),
      this.complaint.element,
    );
    control.addEventListener("input", () => this.fail(""));
  }

  fail(message) {
    this.complaint.show(message);
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

  /** By a share of what it is, and at least by one step: 1 up, -1 down. */
  nudge(direction) {
    const step = Math.max(Number(this.control.step), 0.13 * this.number);
    this.set(this.number + direction * step);
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

  /** Undefined for the default. Raises a Failure for what is no number, which the browser keeps to itself. */
  get number() {
    if (this.control.validity.badInput) throw new Failure({ field: this.name, message: "is no number." });
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

/** A few choices side by side: [value, text, icon?] each. Where they speak for themselves, the label is only heard. */
export class Segments {
  constructor(label, choices, { onchange, labelled = false } = {}) {
    const name = fresh("segments");
    this.inputs = choices.map(([value], i) => h("input", { type: "radio", name, value, checked: i === 0 }));
    this.element = h(
      "fieldset",
      { class: "field" },
      h("legend", { class: labelled ? "field-label" : "sr" }, label),
      h(
        "div",
        { class: "segments" },
        choices.map(([, text, picture], i) => h("label", {}, this.inputs[i], h("span", {}, picture, text))),
      ),
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
    (field.control.querySelector("input:checked") ?? field.control).focus();
  }
}
