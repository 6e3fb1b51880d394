// Begins: the limits, the link, the models, and the screen that the address names.

import { h } from "./dom.js";
import { icon } from "./icons.js";
import { Studio } from "./studio.js";
import { Compare } from "./screens/compare.js";
import { Enlarge } from "./screens/enlarge.js";
import { Generate } from "./screens/generate.js";
import { Inpaint } from "./screens/inpaint.js";
import { Paint } from "./screens/paint.js";
import { WRITTEN } from "./screens/screen.js";
import { Sketch } from "./screens/sketch.js";
import { Translate } from "./screens/translate.js";

const SCREENS = [Paint, Sketch, Inpaint, Translate, Enlarge, Generate, Compare];
const THEMES = ["auto", "light", "dark"];
const at = (id) => document.getElementById(id);

const limits = await (await fetch("limits")).json();
const studio = new Studio(limits);
const screens = new Map(SCREENS.map((Screen) => [Screen.id, new Screen(studio)]));
let screen = null;

function show() {
  const next = screens.get(location.hash.slice(1)) ?? screen ?? screens.get(Paint.id);
  if (next === screen) return;
  screen?.leave();
  studio.failure.hidden = true;
  screen = next;
  const { id, title } = screen.constructor;
  at("stage").replaceChildren(studio.lost, screen.stage, studio.tools.file, studio.toast);
  if (screen.pictured) screen.stage.prepend(studio.tools.element, studio.failure);
  at("controls").replaceChildren(
    h("h2", { class: "screen-title" }, title),
    h("p", { class: "screen-hint" }, screen.constructor.hint),
    screen.panel,
  );
  at("inside").replaceChildren(studio.inside.element);
  at("inside").hidden = screen.alone;
  studio.tools.before.hidden = screen.alone;
  for (const link of at("screens").children) {
    if (link.hash !== `#${id}`) link.removeAttribute("aria-current");
    else {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ inline: "center", block: "nearest" });
    }
  }
  document.title = `${title} · Robust Synthesis Studio`;
  screen.enter();
}

function furnish() {
  at("screens").append(
    ...SCREENS.map(({ id, name, picture }) => h("a", { href: `#${id}` }, icon(picture), h("span", {}, name))),
  );
  const select = h("select", { id: "model-select", onchange: () => studio.useModel(select.value) });
  at("model").append(h("label", { htmlFor: "model-select" }, "Classifier"), select);
  studio.addEventListener("models", () => {
    select.replaceChildren(
      ...studio.models.map(({ name, role, size, classes }) =>
        h(
          "option",
          { value: name },
          `${name} · ${size} px · ${classes.length} classes${role === "robust" ? "" : ` · ${role}`}`,
        ),
      ),
    );
    if (studio.model) select.value = studio.model.name;
  });
  studio.addEventListener("model", () => (select.value = studio.model.name));
  const theme = h(
    "button",
    { type: "button", class: "quiet", onclick: () => use(THEMES[(THEMES.indexOf(chosen()) + 1) % 3]) },
    icon("colours"),
  );
  const chosen = () => document.documentElement.dataset.theme ?? "auto";
  const use = (name) => {
    document.documentElement.dataset.theme = name;
    localStorage.setItem("studio-theme", name);
    theme.title = `Colours: ${name}`;
    theme.setAttribute("aria-label", `Colours: ${name}. Change them.`);
  };
  use(localStorage.getItem("studio-theme") ?? "auto");
  at("theme").append(theme);
}

function tell() {
  const { state, why } = studio.link;
  const texts = { up: "Connected", connecting: "Connecting…", lost: "Reconnecting…" };
  at("state").className = `top-state ${state}`;
  studio.lost.textContent = `${why} What you ask for now waits until it is back.`;
  studio.lost.hidden = state !== "lost";
  at("state").replaceChildren(h("span", { class: "dot" }), texts[state]);
}

/** A photo that was dropped or pasted; where there is no picture, the first screen has one. */
function open(photo) {
  if (!screen.pictured) location.hash = `#${Paint.id}`;
  studio.open(photo);
}

let known = "";
async function follow() {
  tell();
  const { state, models } = studio.link;
  if (state !== "up" || models === known) return;
  known = models;
  try {
    await studio.loadModels();
  } catch (failure) {
    known = "";
    studio.fail(failure);
  }
}

addEventListener("hashchange", show);
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const [photo] = event.dataTransfer.files;
  if (photo) open(photo);
});
addEventListener("paste", (event) => {
  const photo = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
  if (photo) open(photo);
});
addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || event.target.matches(WRITTEN)) return;
  event.preventDefault();
  if (event.shiftKey) studio.pictures.redo();
  else studio.pictures.undo();
});

// Its address is no screen's.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  at("controls").focus();
});

furnish();
tell();
show();
studio.link.addEventListener("state", follow);
studio.link.open();
globalThis.studio = studio; // for who looks under the bonnet, and for the tests
