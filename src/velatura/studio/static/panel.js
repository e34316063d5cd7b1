// The left side: pictures that go in, options, Run.

import { $, fill, h } from "./dom.js";
import { on } from "./bus.js";
import { form } from "./forms.js";
import { choose } from "./open.js";
import { pipelinePanel } from "./pipeline.js";
import { batchPanel } from "./batch.js";
import { run } from "./running.js";
import { slot } from "./slot.js";
import { application, changed, others, session, setPhoto, typed } from "./session.js";

/** Options that are set otherwise: by dragging the piece, or on the sheet. */
const ELSEWHERE = { blend: ["at", "scale"], generate: ["interpolate", "frames"], imagine: ["interpolate"] };

const SHEET = 8; // draws, if nothing else is said: one is no choice

function slots(one) {
  return one.inputs
    .filter((input) => !input.mask)
    .filter((input) => input.name !== "latents")
    .map((input) =>
      input.leading
        ? slot(input.name, input.help, session.photo, setPhoto)
        : slot(
            input.name,
            input.help,
            others()[input.name],
            (item) => {
              others()[input.name] = item;
              changed();
            },
            input.required
              ? null
              : () => {
                  delete others()[input.name];
                  changed();
                },
          ),
    );
}

/** Further pictures of one kind, such as styles to mix. */
function further(name, schema) {
  const items = (others()[name] ??= []);
  return [
    ...items.map((item, i) =>
      slot(`${name} ${i + 1}`, "", item, (other) => ((items[i] = other), changed()), () => {
        items.splice(i, 1);
        changed();
      }),
    ),
    h("button", { type: "button", class: "quiet", onclick: () => choose((item) => (items.push(item), changed())) }, `+ ${schema}`),
  ];
}

function applicationPanel(one) {
  const words = one.name === "imagine" && wordsOf();
  if (one.draws) typed().count ??= SHEET;
  return [
    h("p", { class: "lead" }, one.help),
    one.missing && h("p", { class: "missing", role: "note" }, one.missing),
    words,
    h("div", { class: "slots" }, slots(one), one.several.map((name) => further(name, "a further style"))),
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
  // The field that is typed into keeps the keyboard.
  const parts = session.page === "pipeline" ? pipelinePanel() : session.page === "batch" ? batchPanel() : applicationPanel(application());
  fill(panel, parts);
}

on("session", showPanel);
on("steps", showPanel);
