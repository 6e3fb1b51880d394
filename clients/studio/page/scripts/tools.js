// What can be done with the picture in work on every screen: open another, take back, look at what was before.

import { h } from "./dom.js";
import { Segments } from "./fields.js";
import { icon } from "./icons.js";

const SMOOTH = "studio-smooth";

function tool(picture, text, act, more = {}) {
  return h("button", { type: "button", class: "quiet", onclick: act, ...more }, icon(picture), h("span", {}, text));
}

export class Tools {
  /** The picture before the last change is being looked at. */
  held = false;

  constructor(studio) {
    this.studio = studio;
    const { pictures } = studio;
    this.file = h("input", {
      type: "file",
      class: "sr",
      accept: "image/*",
      tabIndex: -1,
      "aria-label": "Photo",
      onchange: () => this.#opened(),
    });
    this.undo = tool("undo", "Undo", () => pictures.undo(), { title: "Undo (Ctrl+Z)" });
    this.redo = tool("redo", "Redo", () => pictures.redo(), { title: "Redo (Ctrl+Shift+Z)" });
    this.before = tool("before", "Before", null, {
      class: "quiet before",
      title: "Hold to see the picture before the last change",
    });
    this.#listen();
    const smooth = new Segments(
      "Enlarge",
      [
        ["crisp", "Crisp"],
        ["smooth", "Smooth"],
      ],
      { onchange: enlarge },
    );
    smooth.choose(localStorage.getItem(SMOOTH) ?? "smooth");
    enlarge(smooth.chosen);
    this.element = h(
      "div",
      { class: "tools", role: "group", "aria-label": "Picture" },
      tool("open", "Open", () => this.file.click(), { title: "Open a photo, or drop one anywhere" }),
      tool("blank", "Blank", () => studio.open(null), { title: "Begin with a flat grey picture" }),
      h("span", { class: "divider" }),
      this.undo,
      this.redo,
      this.before,
      h("span", { class: "divider" }),
      smooth.element,
    );
  }

  refresh() {
    const { undoable, redoable } = this.studio.pictures;
    this.undo.disabled = !undoable;
    this.redo.disabled = !redoable;
    this.before.disabled = !undoable;
  }

  /** What stands where a picture will be. */
  invitation(...more) {
    const open = h("button", { type: "button", class: "primary", onclick: () => this.file.click() }, "Open a photo");
    return [
      h("p", { class: "empty-title" }, "No picture yet"),
      h("p", {}, "Drop a photo here, or paste one."),
      h("div", { class: "empty-actions" }, open, ...more),
    ];
  }

  #opened() {
    const [photo] = this.file.files;
    if (photo) this.studio.open(photo);
    this.file.value = "";
  }

  #listen() {
    this.before.setAttribute("aria-pressed", "false");
    this.before.addEventListener("pointerdown", () => this.#hold(true));
    for (const end of ["pointerup", "pointerleave", "pointercancel", "blur"]) {
      this.before.addEventListener(end, () => this.held && this.#hold(false));
    }
    this.before.addEventListener("keydown", (event) => {
      if ([" ", "Enter"].includes(event.key)) this.#hold(true);
    });
    this.before.addEventListener("keyup", () => this.#hold(false));
  }

  #hold(held) {
    const { pictures, easel } = this.studio;
    this.held = held;
    easel.show((held ? pictures.before : pictures.present)?.bitmap ?? null);
    easel.element.classList.toggle("before", held);
    this.before.setAttribute("aria-pressed", held);
  }
}

/** How the few pixels of a picture fill the screen. */
function enlarge(how) {
  localStorage.setItem(SMOOTH, how);
  document.documentElement.classList.toggle("smooth", how === "smooth");
}
