// Small drawings on buttons, drawn here: no font has to bring them.

const PATHS = {
  hand: "M7 11V5.5a1.5 1.5 0 0 1 3 0V10m0-5V4a1.5 1.5 0 0 1 3 0v6m0-5a1.5 1.5 0 0 1 3 0v6m0-3a1.5 1.5 0 0 1 3 0v5c0 4-2.500 7-6.500 7-3 0-4.500-1.500-6-4L4 12.500c-.6-1.500 1.400-2.500 2.400-1.300L7 12",
  brush: "M20 4c-4 1-9 6-11 9l3 3c3-2 7-7 8-12ZM8.500 14c-2 0-3 1.500-3 3S4.500 20 3 20c3 1 8 .5 8-3.500",
  eraser: "M4 15 13 6l6 6-7 7H8l-4-4Zm5-5 6 6M8 19h12",
  lasso: "M12 5c5 0 8 2 8 5s-3 5-8 5-8-2-8-5 3-5 8-5Zm-5 9c-1 2 0 3 1.500 3S10 19 9 21",
  box: "M5 6h14v12H5z",
  undo: "M5 9h9a5 5 0 0 1 0 10H9M5 9l4-4M5 9l4 4",
  redo: "M19 9h-9a5 5 0 0 0 0 10h5m4-10-4-4m4 4-4 4",
};

/** Give a drawing, hidden from screen readers: the button's title says what it is. */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const path = document.createElementNS(space, "path");
  const set = (element, values) => Object.entries(values).forEach(([key, value]) => element.setAttribute(key, value));
  set(svg, { viewBox: "0 0 24 24", width: 18, height: 18, "aria-hidden": "true" });
  set(path, { d: PATHS[name], fill: "none", stroke: "currentColor", "stroke-width": 1.8, "stroke-linecap": "round", "stroke-linejoin": "round" });
  svg.append(path);
  return svg;
}
