// The middle: what the stage shows now, and the tools above it.

import { $, download, fill, h } from "./dom.js";
import { fileOf, get } from "./api.js";
import { emit, on } from "./bus.js";
import { bitmap } from "./bitmaps.js";
import { layersOf, Slider } from "./compare.js";
import { labelOf } from "./forms.js";
import { icon } from "./icons.js";
import { change, loadMask, maskOf, redo, sendMask, undo } from "./masks.js";
import { Placing, placed, placingLayers } from "./place.js";
import { application, changed, leadingOf, others, session, workOn } from "./session.js";
import { picture, stage, zoomIn, zoomOut } from "./stage.js";
import { Brush, brush, resizeBrush, Shape } from "./tools.js";

let overlay = null; // the mask that is painted on now
const target = () => overlay;
const slider = new Slider();
const tools = {
  hand: null,
  brush: new Brush(target, true),
  eraser: new Brush(target, false),
  lasso: new Shape(target, "lasso"),
  box: new Shape(target, "box"),
};
const placing = new Placing(() => look());
let chosen = "brush";
let looks = 0; // the last look counts, as pictures come when they come

export const sliderTool = slider;
export const placingTool = () => (stage.tool === placing ? placing : null);
export const overlayNow = () => overlay;

/** Choose a tool by its name. */
export function choose(name) {
  // What the last tool had begun ends here.
  overlay?.mask.end();
  emit("tool");
  chosen = name;
  look();
}

const paints = () =>
  session.page === "pipeline"
    ? session.steps.some((step) => session.applications[step.application].inputs.some((input) => input.mask))
    : application()?.inputs.some((input) => input.mask);

/** The picture that the stage lies on: the one that is worked on, or the piece while it is cut out. */
const ground = () => (session.page === "blend" && placed.cutting ? others("blend").source : session.photo);

/** Show what there is to see now. */
export async function look() {
  const turn = ++looks;
  const sheet = session.page === "batch" || application()?.draws;
  $("#stage").hidden = sheet;
  $("#sheet").hidden = !sheet;
  if (sheet) {
    fill($("#toolbar"));
    return;
  }
  const item = ground();
  $("#empty").hidden = Boolean(item);
  if (!item) {
    overlay = null;
    stage.tool = null;
    stage.show(0, 0, []);
    fill($("#toolbar"));
    return;
  }
  try {
    await (session.shown && session.mode !== "edit" ? compare(turn) : edit(turn, item));
  } catch (error) {
    emit("failed", error.message);
  }
}

async function compare(turn) {
  const job = session.shown;
  const result = job.results.find((one) => one.what === session.mode) ?? job.results[0];
  const after = await bitmap(result.id);
  const before = await beforeOf(job);
  if (turn !== looks) return;
  overlay = null;
  const base = before ?? after;
  stage.tool = session.mode === "slider" && before ? slider : null;
  stage.box.style.cursor = stage.tool ? "ew-resize" : "grab";
  stage.show(base.width, base.height, before ? layersOf(session.mode, before, after, slider) : [picture(after)], session.mode === "side" && before ? 2 : 1);
  describe(`${job.application} of ${job.title}, ${session.mode}`);
  toolbar();
}

/** Give what a job began with, if it is still there. */
async function beforeOf(job) {
  const one = session.applications[job.application];
  const id = job.inputs[one ? leadingOf(one) : "image"];
  if (!id) return null;
  return (await get(`/api/images/${id}`).catch(() => null)) && bitmap(id);
}

async function edit(turn, item) {
  const image = await bitmap(item.id);
  const cutting = session.page === "blend" && placed.cutting;
  const masked = session.page === "blend" ? cutting : paints();
  const found = masked ? await maskOf(item) : null;
  const layers = [picture(image)];
  if (session.page === "blend" && !cutting) layers.push(...(await placingLayers(item)));
  if (turn !== looks) return;
  overlay = found;
  if (found) layers.push((context, view) => picture(overlay?.canvas ?? found.canvas)(context, view));
  stage.tool = found ? tools[chosen] : session.page === "blend" && others("blend").source ? placing : null;
  stage.box.style.cursor = found && (chosen === "brush" || chosen === "eraser") ? "none" : found && chosen !== "hand" ? "crosshair" : "grab";
  stage.show(image.width, image.height, layers);
  describe(`${item.name}, ${item.width} x ${item.height}${found && !found.mask.empty ? ", with a painted mask" : ""}`);
  toolbar();
}

const describe = (text) => stage.box.setAttribute("aria-label", text);

// --- the toolbar ------------------------------------------------------------------------------------------------------

const button = (label, title, onclick, properties = {}) =>
  h("button", { type: "button", title, "aria-label": typeof label === "string" ? null : title, onclick, ...properties }, label);
const group = (label, ...children) => h("div", { class: "group", role: "group", "aria-label": label }, ...children);
const choice = (name, label, title, now, set) => button(label, title, () => set(name), { "aria-pressed": String(name === now) });

function toolbar() {
  fill($("#toolbar"), views(), session.mode === "edit" && cutting(), overlay && painting(), zooming());
}

function views() {
  if (!session.shown) return null;
  const set = (mode) => {
    session.mode = mode;
    if (["slider", "side", "difference", "result", "before"].includes(mode)) session.compare = mode;
    changed();
  };
  const maps = session.shown.results.filter((one) => one.what !== "result");
  const editable = maps.find((one) => one.what === "mask_out");
  return [
    group(
      "View",
      choice("edit", "Edit", "Work on the picture (E)", session.mode, set),
      choice("result", "Result", "The result alone (1)", session.mode, set),
      choice("slider", "Slider", "Before and after, with a slider (2)", session.mode, set),
      choice("side", "Side by side", "Before beside after (3)", session.mode, set),
      choice("difference", "Difference", "What changed, four times as strong (4)", session.mode, set),
      maps.map((one) => choice(one.what, labelOf(one.what), `Show ${one.what.replaceAll("_", " ")}`, session.mode, set)),
    ),
    editable && button("Correct this mask", "Paint on the mask that was found, and run again", () => correct(editable)),
    session.mode === "edit" && group(
      "Work on",
      h("span", { class: "hint" }, "work on"),
      choice("original", "original", "Run on what was opened", session.from, workOn),
      choice("result", "result", "Go on from the result", session.from, workOn),
    ),
  ];
}

/** Take over the mask that was found, to be corrected. */
async function correct(map) {
  await loadMask(await maskOf(session.photo), map);
  session.mode = "edit";
  chosen = "eraser";
  changed();
}

function cutting() {
  if (session.page !== "blend" || !others("blend").source) return null;
  const set = (cuts) => {
    placed.cutting = cuts;
    stage.size = { width: 0, height: 0 };
    look();
  };
  return group(
    "Piece",
    choice(true, "Cut out", "Paint what is to be taken from the source", placed.cutting, set),
    choice(false, "Place", "Drag, scale and turn the piece on the destination", placed.cutting, set),
  );
}

function painting() {
  const { mask } = overlay;
  const set = (name) => choose(name);
  const size = h("input", {
    type: "range", min: 2, max: 200, value: brush.size, title: "Size of the brush: wheel, or [ and ]", "aria-label": "Size of the brush",
    oninput: (event) => {
      brush.size = Number(event.target.value);
      stage.draw();
    },
  });
  const soft = h("input", {
    type: "range", min: 0, max: 1, step: 0.05, value: brush.soft, title: "Softness of the edge", "aria-label": "Softness of the edge",
    oninput: (event) => (brush.soft = Number(event.target.value)),
  });
  return [
    group(
      "Paint",
      choice("hand", icon("hand"), "Move the picture (H, or hold Space)", chosen, set),
      choice("brush", icon("brush"), "Brush (B)", chosen, set),
      choice("eraser", icon("eraser"), "Eraser (X)", chosen, set),
      choice("lasso", icon("lasso"), "Lasso (L); with Alt it erases", chosen, set),
      choice("box", icon("box"), "Box (R); with Alt it erases", chosen, set),
    ),
    h("label", { class: "slide" }, h("span", {}, "size"), size),
    h("label", { class: "slide" }, h("span", {}, "soft"), soft),
    group(
      "Mask",
      button(icon("undo"), "Undo (Ctrl+Z)", () => undo(overlay), { disabled: !mask.done.length }),
      button(icon("redo"), "Redo (Ctrl+Shift+Z)", () => redo(overlay), { disabled: !mask.undone.length }),
      button("Invert", "Invert the mask (I)", () => change(overlay, (one) => one.invert())),
      button("Clear", "Empty the mask (Delete)", () => change(overlay, (one) => one.clear())),
      button("Load", "Load a mask from a file", () => emit("choose", async (item) => loadMask(overlay, item))),
      button("Save", "Save the mask as a PNG of the picture's size", saveMask),
    ),
  ];
}

/** Save the mask at the picture's own size, under the name that command lines call it by. */
async function saveMask() {
  await sendMask(overlay, ground()).then((id) => download(fileOf(id)), (error) => emit("failed", error.message));
}

function zooming() {
  const percent = () => `${Math.round((100 * stage.view.scale * stage.size.width) / Math.max(ground()?.width ?? 1, 1))} %`;
  return group(
    "Zoom",
    button("−", "Smaller (-)", zoomOut),
    h("output", { id: "zoom" }, percent()),
    button("+", "Larger (+)", zoomIn),
    button("Fit", "Fit the picture into the window (0)", () => stage.fit()),
  );
}

on("session", look);
on("mask", toolbar);
on("brush", toolbar);
on("zoomed", () => {
  const output = $("#zoom");
  const item = ground();
  if (output && item) output.textContent = `${Math.round((100 * stage.view.scale * stage.size.width) / item.width)} %`;
});
on("resize-brush", resizeBrush);
