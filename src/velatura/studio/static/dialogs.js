// What opens over the page: samples, models, help.

import { $, fill, h } from "./dom.js";
import { get, post } from "./api.js";
import { emit } from "./bus.js";
import { loadMask, maskOf } from "./masks.js";
import { placed, settle } from "./place.js";
import { leadingOf, others, session, setPhoto } from "./session.js";

function open(title, ...children) {
  const dialog = $("#dialog");
  const close = h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => dialog.close() }, "×");
  fill(dialog, h("div", { class: "row head" }, h("h2", { id: "dialog-title" }, title), h("span", { class: "spring" }), close), ...children);
  if (!dialog.open) dialog.showModal();
  dialog.onclick = (event) => event.target === dialog && dialog.close();
}

// --- samples ----------------------------------------------------------------------------------------------------------

export async function samples() {
  const found = await get("/api/samples").catch(failed);
  if (!found) return;
  open(
    "Samples",
    h("p", { class: "hint" }, "Free photographs, from scikit-image."),
    h("ul", { class: "choices" }, found.map((one) =>
      h("li", {}, h("button", { type: "button", onclick: () => take(one.name) }, h("strong", {}, one.title), h("small", {}, `for ${one.application}`))))),
  );
}

async function take(name) {
  $("#dialog").close();
  emit("said", "opening…");
  const sample = await post(`/api/samples/${name}`).catch(failed);
  if (!sample) return;
  const one = session.applications[sample.application];
  session.page = sample.application;
  const leading = leadingOf(one);
  for (const input of one.inputs) {
    if (!input.leading && !input.mask && sample.images[input.name]) others(one.name)[input.name] = sample.images[input.name];
  }
  placed.cutting = false;
  if (sample.application === "blend") {
    const { source, destination, mask } = sample.images;
    const { at, scale } = sample.params;
    if (mask) await loadMask(await maskOf(source), mask);
    settle(source, destination, at, scale);
  }
  setPhoto(sample.images[leading]);
  emit("said", `${sample.images[leading].name}: ${sample.images[leading].width} x ${sample.images[leading].height}`);
}

// --- models -----------------------------------------------------------------------------------------------------------

export async function models() {
  const cards = await get("/api/models").catch(failed);
  if (!cards) return;
  const missing = Object.values(session.applications).filter((one) => one.missing);
  open(
    "Models",
    missing.map((one) => h("p", { class: "missing" }, one.missing)),
    cards.map((card) =>
      h("details", { class: "card" },
        h("summary", {}, h("strong", {}, card.name), h("small", {}, ` ${card.task}, ${card.parameters.toLocaleString("en")} parameters, ${(card.bytes / 2 ** 20).toFixed(1)} MiB`)),
        h("dl", {}, facts(card).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])))),
  );
}

function facts(card) {
  const score = (one) =>
    `${one.metric} ${one.value.toPrecision(4)}${one.unit ? ` ${one.unit}` : ""} (${one.baseline} ${one.baseline_value.toPrecision(4)}; ${one.better} is better)`;
  return [
    ["architecture", card.architecture],
    ["saw", card.images.map((one) => `${one.count.toLocaleString("en")} images of ${one.set}: ${one.terms}`).join("; ")],
    ["commerce", `${card.commercial_use ? "yes" : "no"}: ${card.commercial_use_reason}`],
    ["licence", card.weights_licence],
    ["measured", card.scores.length ? card.scores.slice(0, 6).map(score).join("; ") : "not yet"],
    ["protocol", card.protocol || "none yet"],
    ["paper", card.paper],
    ["limits", card.limits.join(" ")],
  ];
}

// --- help -------------------------------------------------------------------------------------------------------------

const KEYS = [
  ["Picture", [["+ − 0", "larger, smaller, fit"], ["wheel", "zoom; over a painted mask: size of the brush, with Ctrl zoom"], ["Space and drag", "move the picture"], ["two fingers", "move and zoom"]]],
  ["Mask", [["B X L R H", "brush, eraser, lasso, box, hand"], ["[ ]", "smaller, larger brush"], ["Alt", "with lasso or box: erase"], ["Ctrl+Z, Ctrl+Shift+Z", "undo, redo"], ["I", "invert"], ["Delete", "empty the mask"]]],
  ["By keys alone", [["arrows, Shift for more", "move the pen (focus the picture first)"], ["Enter", "lower and lift the pen"]]],
  ["Piece of a blend", [["arrows", "move by a pixel, with Shift by ten"], ["< >", "smaller, larger"], [", .", "turn by a degree"], ["wheel, Shift+wheel", "scale, turn"]]],
  ["Result", [["E 1 2 3 4", "edit, result, slider, side by side, difference"], ["← →", "move the slider"]]],
  ["Work", [["Ctrl+Enter", "run"], ["Escape", "cancel what runs"], ["Ctrl+V", "paste a picture"], ["?", "this sheet"]]],
];

export function help() {
  open(
    "Keys and tools",
    h("div", { class: "keys" }, KEYS.map(([title, keys]) => h("section", {}, h("h3", {}, title), h("dl", {}, keys.flatMap(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)]))))),
    h("p", { class: "hint" }, "Scripts use the same interface: ", h("a", { href: "/docs" }, "its addresses"), "."),
  );
}

const failed = (error) => emit("failed", error.message);
