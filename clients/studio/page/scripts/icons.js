// Strokes on a grid of 24, drawn in the colour of the text.

import { svg } from "./dom.js";

const PATHS = {
  paint: "M4 20c3 0 4-1 4-3a3 3 0 0 1 3-3M11 14 19 5a1.6 1.6 0 0 1 2 2l-8 9M4 20c0-3 1-6 4-6a3 3 0 0 1 3 3",
  sketch: "M4 20l1-4L16 5l3 3L8 19l-4 1M13 8l3 3",
  inpaint: "M4 4h16v16H4zM9 9h6v6H9zM9 12l3-3M12 15l3-3",
  translate: "M4 8h14M14 4l4 4-4 4M20 16H6M10 12l-4 4 4 4",
  enlarge: "M4 14v6h6M20 10V4h-6M4 20l7-7M20 4l-7 7",
  generate: "M12 3l2 6 6 2-6 2-2 6-2-6-6-2 6-2zM19 17v4M17 19h4",
  compare: "M4 5h7v14H4zM13 5h7v14h-7zM15 9h3M15 12h3M15 15h3",
  open: "M4 18V6h5l2 2h9v10zM12 16v-5M9.500 13 12 10.500 14.500 13",
  blank: "M6 3h8l4 4v14H6zM14 3v4h4",
  undo: "M8 5 4 9l4 4M4 9h10a5 5 0 0 1 0 10h-4",
  redo: "M16 5l4 4-4 4M20 9H10a5 5 0 0 0 0 10h4",
  before: "M12 4v16M4 6h6v12H4zM14 6h6v12h-6",
  download: "M12 4v11M7.500 11 12 15.500 16.500 11M5 20h14",
  film: "M4 5h16v14H4zM8 5v14M16 5v14M4 9h4M4 15h4M16 9h4M16 15h4",
  command: "M4 5h16v14H4zM7.500 9.500 10 12l-2.500 2.500M12.500 15h4",
  program: "M9 6 4 12l5 6M15 6l5 6-5 6",
  colours: "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18M12 7h4M12 11h5.500M12 15h5.500",
  brush: "M5 19c3 0 4-1 5-3l9-9-2-2-9 9c-2 1-3 2-3 5z",
  eraser: "M9 19l-5-5 9-9 6 6-8 8zM9 19h11M8 10l6 6",
  fill: "M5 12l7-7 7 7-7 7zM12 5V3M20 16c1.500 2 1.500 4 0 4s-1.500-2 0-4",
};

export function icon(name) {
  const path = svg("path", { d: PATHS[name] });
  return svg("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true", focusable: "false" }, path);
}
