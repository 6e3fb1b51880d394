// What to paint with: a class, or a feature that the classifier has learnt, with the pictures that show most of it.

import { fresh, h } from "./dom.js";
import { Complaint, Segments } from "./fields.js";

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
  constructor(label, { automatic = "" } = {}) {
    this.name = "target";
    this.automatic = automatic;
    this.list = new List(label, () => this.fail(""));
    this.control = this.list.items;
    this.complaint = new Complaint(this.control);
    this.element = h(
      "div",
      { class: "field" },
      h("div", { class: "field-head" }, h("span", {}, label)),
      this.list.element,
      this.complaint.element,
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

  fail(message) {
    this.complaint.show(message);
  }
}

/** A class or a feature. */
export class BrushChooser {
  constructor({ units }) {
    this.name = "unit";
    this.units = units;
    this.kinds = new Segments(
      "Paint with",
      [
        ["unit", "Feature"],
        ["class", "Class"],
      ],
      { onchange: () => this.#show(), labelled: true },
    );
    this.features = new List("Feature", () => this.fail(""));
    this.classes = new List("Class", () => this.fail(""));
    this.control = this.features.items;
    this.complaint = new Complaint(this.control);
    this.element = h(
      "div",
      { class: "field" },
      this.kinds.element,
      this.features.element,
      this.classes.element,
      this.complaint.element,
    );
  }

  async use(model) {
    this.model = model;
    this.classes.fill(model.classes.map((name) => ({ value: name, text: name })));
    this.kinds.allow(model.unit_count ? ["unit", "class"] : ["class"]);
    this.features.fill([]);
    this.#show();
    if (!model.unit_count) return;
    try {
      const units = await this.units(model);
      if (model !== this.model) return;
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
    this.complaint.show(message);
  }

  #show() {
    this.features.element.hidden = this.kinds.chosen !== "unit";
    this.classes.element.hidden = this.kinds.chosen !== "class";
  }
}
