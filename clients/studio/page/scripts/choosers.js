// What to paint with: a class, or a feature that the classifier has learnt, with the pictures that show most of it.

import { fresh, h } from "./dom.js";
import { Segments } from "./fields.js";

/** More than so many have a field to search them. */
const FILTERED = 12;

/** One of a list that is searched and scrolled; `items` are { value, text, group, picture? }. */
class List {
  constructor(label, onchange) {
    this.name = fresh("list");
    this.filter = h("input", {
      type: "search",
      class: "list-filter",
      placeholder: "Search",
      "aria-label": `Search: ${label}`,
    });
    this.items = h("div", { class: "list", role: "radiogroup", "aria-label": label });
    this.none = h("p", { class: "list-none", hidden: true }, "Nothing of that name.");
    this.element = h("div", { class: "chooser" }, this.filter, this.items, this.none);
    this.filter.addEventListener("input", () => this.#search());
    this.items.addEventListener("change", () => onchange?.());
  }

  fill(items) {
    const chosen = this.chosen;
    this.values = new Map(items.map((item) => [String(item.value), item]));
    this.filter.hidden = items.length <= FILTERED;
    this.filter.value = "";
    this.items.replaceChildren(...items.map((item) => this.#row(item)));
    this.#search();
    if (!this.choose(chosen?.value)) this.choose(items[0]?.value);
  }

  get chosen() {
    const input = this.items.querySelector("input:checked");
    return input ? this.values.get(input.value) : null;
  }

  choose(value) {
    const input = [...this.items.querySelectorAll("input")].find((each) => each.value === String(value));
    if (input) input.checked = true;
    return Boolean(input);
  }

  #row({ value, text, group, picture }) {
    return h(
      "label",
      { class: picture ? "row pictured" : "row", data: { text: `${text} ${group ?? ""}`.toLowerCase() }, title: text },
      h("input", { type: "radio", name: this.name, value }),
      picture && h("img", { src: picture, alt: "", loading: "lazy", decoding: "async" }),
      h("span", { class: "row-text" }, text),
    );
  }

  #search() {
    const sought = this.filter.value.trim().toLowerCase();
    let shown = 0;
    for (const row of this.items.children) {
      row.hidden = !row.dataset.text.includes(sought);
      shown += !row.hidden;
    }
    this.none.hidden = shown > 0 || !this.items.children.length;
  }
}

/** A class of the model. `name` is what the service calls it. */
export class ClassChooser {
  constructor(label = "Class", { onchange, automatic = "" } = {}) {
    this.name = "target";
    this.automatic = automatic;
    this.list = new List(label, () => {
      this.fail("");
      onchange?.();
    });
    this.error = h("p", { class: "field-error", role: "alert", hidden: true });
    this.control = this.list.items;
    this.element = h(
      "div",
      { class: "field" },
      h("div", { class: "field-head" }, h("span", {}, label)),
      this.list.element,
      this.error,
    );
  }

  set model(model) {
    const items = model.classes.map((name) => ({ value: name, text: name }));
    if (this.automatic) items.unshift({ value: "", text: this.automatic });
    this.list.fill(items);
  }

  /** Undefined leaves it to the service. */
  get target() {
    return this.list.chosen?.value || undefined;
  }

  choose(name) {
    this.list.choose(name);
  }

  fail(message) {
    this.error.textContent = message;
    this.error.hidden = !message;
  }
}

/** A class or a feature. */
export class BrushChooser {
  constructor({ onchange, units }) {
    this.name = "unit";
    this.units = units;
    this.kinds = new Segments(
      "Paint with",
      [
        ["unit", "Feature"],
        ["class", "Class"],
      ],
      {
        onchange: () => {
          this.#show();
          onchange?.();
        },
      },
    );
    this.features = new List("Feature", () => this.#changed(onchange));
    this.classes = new List("Class", () => this.#changed(onchange));
    this.error = h("p", { class: "field-error", role: "alert", hidden: true });
    this.control = this.features.items;
    this.element = h(
      "div",
      { class: "field" },
      h("div", { class: "field-head" }, h("span", {}, "Paint with")),
      this.kinds.element,
      this.features.element,
      this.classes.element,
      this.error,
    );
  }

  async use(model) {
    this.classes.fill(model.classes.map((name) => ({ value: name, text: name })));
    this.kinds.allow(model.unit_count ? ["unit", "class"] : ["class"]);
    this.features.fill([]);
    this.#show();
    if (!model.unit_count) return;
    try {
      const units = await this.units(model);
      this.features.fill(
        units.map(({ unit, name, class: group, picture }) => ({
          value: unit,
          text: name || `${group} ${unit}`,
          group,
          picture,
        })),
      );
    } catch (failure) {
      this.fail(failure.message);
    }
  }

  /** As the task's JSON has it; null while there is nothing to choose from. */
  get brush() {
    if (this.kinds.chosen === "class") return this.classes.chosen && { target: this.classes.chosen.value };
    return this.features.chosen && { unit: this.features.chosen.value };
  }

  fail(message) {
    this.error.textContent = message;
    this.error.hidden = !message;
  }

  #changed(onchange) {
    this.fail("");
    onchange?.();
  }

  #show() {
    this.features.element.hidden = this.kinds.chosen !== "unit";
    this.classes.element.hidden = this.kinds.chosen !== "class";
  }
}
