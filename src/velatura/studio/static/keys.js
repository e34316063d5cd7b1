// The keyboard.

import { $ } from "./dom.js";
import { on } from "./bus.js";
import { change, redo, undo } from "./masks.js";
import { help } from "./dialogs.js";
import { cancelRunning, run } from "./running.js";
import { changed, session } from "./session.js";
import { stage, zoomIn, zoomOut } from "./stage.js";
import { Pen, resizeBrush } from "./tools.js";
import { choose, overlayNow, placingTool, sliderTool } from "./workspace.js";

const TOOLS = { b: "brush", x: "eraser", l: "lasso", r: "box", h: "hand" };
const VIEWS = { e: "edit", 1: "result", 2: "slider", 3: "side", 4: "difference" };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const pen = new Pen();

/** Keys that count everywhere but where text is typed. */
function anywhere(event) {
  const key = event.key.toLowerCase();
  if (key === "?") help();
  else if (key === "escape") cancelRunning();
  else if (key === "+" || key === "=") zoomIn();
  else if (key === "-") zoomOut();
  else if (key === "0") stage.fit();
  else if (VIEWS[key] && session.shown) {
    session.mode = VIEWS[key];
    changed();
  } else return painting(event, key);
  return true;
}

function painting(event, key) {
  const overlay = overlayNow();
  if (!overlay) return false;
  if (TOOLS[key]) choose(TOOLS[key]);
  else if (key === "[") resizeBrush(-1);
  else if (key === "]") resizeBrush(1);
  else if (key === "i") change(overlay, (mask) => mask.invert());
  else if (key === "delete") change(overlay, (mask) => mask.clear());
  else return false;
  return true;
}

/** Keys that count while the picture has the keyboard. */
function onStage(event) {
  if (placingTool()?.key(event)) return true;
  const arrow = ARROWS[event.key];
  if (arrow && stage.tool === sliderTool) sliderTool.nudge(arrow[0] * 0.02);
  else if (arrow) return pen.step(...arrow, event.shiftKey) || pannedBy(arrow);
  else if (event.key === "Enter") return pen.press();
  else if (event.key === " ") stage.spaceHeld = true;
  else return false;
  return true;
}

function pannedBy([x, y]) {
  stage.pan(-40 * x, -40 * y);
  return true;
}

function withControl(event) {
  const overlay = overlayNow();
  if (event.key === "Enter") run();
  else if (event.key.toLowerCase() === "z" && overlay) (event.shiftKey ? redo : undo)(overlay);
  else if (event.key.toLowerCase() === "y" && overlay) redo(overlay);
  else return false;
  return true;
}

// Another tool begins with the pen raised.
on("tool", () => pen.lift());

export function listen() {
  addEventListener("keyup", (event) => {
    if (event.key === " ") stage.spaceHeld = false;
  });
  addEventListener("keydown", (event) => {
    if ($("#dialog").open) return;
    const typing = event.target.closest("input:not([type=range], [type=checkbox]), textarea, select");
    if (event.ctrlKey || event.metaKey) {
      if ((!typing || event.key === "Enter") && withControl(event)) event.preventDefault();
      return;
    }
    if (typing) return;
    const pressed = event.target.closest("button, summary, a") && (event.key === " " || event.key === "Enter");
    if (pressed) return;
    if ((event.target === stage.box && onStage(event)) || anywhere(event)) event.preventDefault();
  });
}
