// The left side: pictures that go in, options, Run.

import { $, fill, h } from "./dom.js";
import { on } from "./bus.js";
import { form } from "./forms.js";
import { pipelinePanel } from "./pipeline.js";
import { batchPanel } from "./batch.js";
import { run } from "./running.js";
import { further, slot, slots } from "./slot.js";
import { application, others, session, setPhoto, typed } from "./session.js";

/** Options that are set otherwise: by dragging the piece, or on the sheet. */
const ELSEWHERE = { blend: ["at", "scale"], generate: ["interpolate", "frames"], imagine: ["interpolate"] };

const SHEET = 8; // draws, if nothing else is said: one is no choice

function slotsOf(one) {
  const shown = one.inputs.filter((input) => !input.mask && input.name !== "latents");
  const leading = shown.find((input) => input.leading);
  const kept = others();
  return [
    leading && slot(leading.name, leading.help, session.photo, setPhoto),
    slots(shown.filter((input) => !input.leading), kept),
    one.several.map((name) => further(name, "a further style", kept)),
  ];
}

function applicationPanel(one) {
  const words = one.name === "imagine" && wordsOf();
  if (one.draws) typed().count ??= SHEET;
  return [
    h("p", { class: "lead" }, one.help),
    one.missing && h("p", { class: "missing", role: "note" }, one.missing),
    words,
    h("div", { class: "slots" }, slotsOf(one)),
    form(one, typed(), ELSEWHERE[one.name]),
    h("div", { class: "run" }, h("button", { id: "run", type: "button", class: "primary", onclick: run, title: "Ctrl+Enter" }, one.draws ? "Draw" : "Run")),
  ];
}

function wordsOf() {
  const box = h("textarea", {
    id: "text", rows: 3, maxlength: 1000, placeholder: "a red flower with a yellow centre",
    oninput: () => (typed()[":text"] = box.value),
  });
  box.value = typed()[":text"] ?? "";
  const to = h("input", { type: "text", maxlength: 1000, value: typed()[":to"] ?? "", oninput: () => (typed()[":to"] = to.value) });
  return [
    h("label", { class: "field" }, h("span", { class: "name" }, "Text"), box, h("p", { id: "unknown", class: "hint" })),
    h("label", { class: "field" }, h("span", { class: "name" }, "To another text"), to, h("small", {}, "if given: pictures on the way from the one to the other")),
  ];
}

export function showPanel() {
  const panel = $("#panel");
  const parts = session.page === "pipeline" ? pipelinePanel() : session.page === "batch" ? batchPanel() : applicationPanel(application());
  fill(panel, parts);
}

on("session", showPanel);
on("steps", showPanel);
