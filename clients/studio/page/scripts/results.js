// What can be done with a result: download it, the way there, and how to make it again.

import { h } from "./dom.js";
import { icon } from "./icons.js";
import { command, python } from "./recipes.js";

const ANIMATED_SIDE = 256;
const MOST_FRAMES = 150;

export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = h("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Buttons for the entry that `present` gives; `small` leaves out their texts. */
export class Results {
  constructor({ link, present, notify, small = false }) {
    Object.assign(this, { link, present, notify });
    const button = (picture, text, title, act) =>
      h(
        "button",
        { type: "button", class: "quiet", title, "aria-label": title, onclick: () => this.#do(act) },
        icon(picture),
        small ? "" : h("span", {}, text),
      );
    this.png = button("download", "PNG", "Download as PNG", (entry) => this.#png(entry));
    this.way = [
      button("film", "GIF", "Download the way there as GIF", (entry) => this.#animation(entry, "gif")),
      !small && button("film", "WebP", "Download the way there as WebP", (entry) => this.#animation(entry, "webp")),
    ].filter(Boolean);
    this.recipe = [
      button("command", "Command", "Copy as command", async (entry) =>
        this.#copy(await command(entry.recipe), "command"),
      ),
      button("program", "Python", "Copy as Python", async (entry) => this.#copy(await python(entry.recipe), "program")),
    ];
    this.element = h(
      "div",
      { class: "results", role: "group", "aria-label": "Result" },
      this.png,
      ...this.way,
      ...this.recipe,
    );
    this.refresh();
  }

  refresh() {
    const entry = this.present();
    this.element.classList.toggle("nothing", !entry);
    this.png.disabled = !entry;
    for (const button of this.way) button.disabled = !(entry?.frames.length > 1);
    for (const button of this.recipe) button.disabled = !entry?.recipe;
  }

  async #do(act) {
    try {
      await act(this.present());
    } catch (failure) {
      this.notify(failure.message);
    }
  }

  #png(entry) {
    save(entry.blob, `${name(entry)}.png`);
  }

  async #animation(entry, format) {
    const every = Math.ceil(entry.frames.length / MOST_FRAMES);
    const frames = entry.frames.filter((_, i) => i % every === 0 || i === entry.frames.length - 1);
    const { blobs } = await this.link.order({ do: "animate", format, enlarge: ANIMATED_SIDE }, frames);
    save(new Blob(blobs, { type: `image/${format}` }), `${name(entry)}.${format}`);
  }

  async #copy(text, what) {
    try {
      await navigator.clipboard.writeText(text);
      this.notify(`Copied: a ${what} that makes this picture again.`);
    } catch {
      this.#offer(text);
    }
  }

  // Where the clipboard is not to be had, as on pages without TLS.
  #offer(text) {
    const area = h("textarea", {
      readOnly: true,
      rows: 12,
      "aria-label": "How to make the picture again",
      value: text,
    });
    const close = h("button", { type: "button", onclick: () => dialog.close() }, "Close");
    const dialog = h("dialog", { class: "copying" }, h("p", {}, "Copy this:"), area, close);
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
    area.select();
  }
}

function name({ report }) {
  if (!report) return "picture";
  const target = report.pictures[0].target.replaceAll(/[^\w-]+/g, "-");
  return `${report.task.replaceAll("_", "-")}-${target}-${report.pictures[0].seed}`;
}
