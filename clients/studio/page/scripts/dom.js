// Elements without markup in text: `h("button", { class: "primary", onclick: go }, "Go")`.

export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name.startsWith("on") || (name in element && !name.includes("-"))) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

let ids = 0;

/** A new id, for labels and descriptions. */
export function fresh(stem) {
  ids += 1;
  return `${stem}-${ids}`;
}

/** Calls at most every so many milliseconds, the last call always. */
export function throttled(milliseconds, call) {
  let timer = 0;
  let next = 0;
  return (...given) => {
    clearTimeout(timer);
    const wait = next - performance.now();
    timer = setTimeout(
      () => {
        next = performance.now() + milliseconds;
        call(...given);
      },
      Math.max(0, wait),
    );
  };
}
