// The pipeline: steps as chips, to be moved; each with the form of its application.

import { h } from "./dom.js";
import { emit } from "./bus.js";
import { form, labelOf } from "./forms.js";
import { changed, session, setPhoto } from "./session.js";
import { run } from "./running.js";
import { slot } from "./slot.js";

let open = 0; // the step whose form is shown
let dragged = null;

const usable = () => Object.values(session.applications).filter((one) => !one.draws);

function add(name) {
  session.steps.push({ application: name, typed: {}, others: {} });
  open = session.steps.length - 1;
  changed();
}

/** Move a step to another place. */
function move(from, to) {
  if (to < 0 || to >= session.steps.length || from === to) return;
  session.steps.splice(to, 0, ...session.steps.splice(from, 1));
  open = to;
  emit("said", `${session.steps[to].application} is step ${to + 1} now`);
  changed();
}

function take(index) {
  session.steps.splice(index, 1);
  open = Math.max(0, Math.min(open, session.steps.length - 1));
  changed();
}

function chip(step, i) {
  const chosen = i === open;
  return h(
    "li",
    {
      class: "chip", draggable: "true",
      ondragstart: () => (dragged = i),
      ondragover: (event) => event.preventDefault(),
      ondrop: (event) => {
        event.preventDefault();
        event.stopPropagation();
        move(dragged, i);
      },
    },
    h("button", {
      type: "button", "aria-pressed": String(chosen), title: "Its options; Alt with arrows moves it, Delete takes it away",
      onclick: () => {
        open = i;
        emit("steps");
      },
      onkeydown: (event) => {
        if (event.altKey && event.key === "ArrowLeft") move(i, i - 1);
        else if (event.altKey && event.key === "ArrowRight") move(i, i + 1);
        else if (event.key === "Delete") take(i);
        else return;
        event.preventDefault();
      },
    }, `${i + 1} ${step.application}`),
    h("button", { type: "button", class: "quiet", "aria-label": `Move step ${i + 1} forward`, disabled: i === 0, onclick: () => move(i, i - 1) }, "‹"),
    h("button", { type: "button", class: "quiet", "aria-label": `Move step ${i + 1} back`, disabled: i === session.steps.length - 1, onclick: () => move(i, i + 1) }, "›"),
    h("button", { type: "button", class: "quiet", "aria-label": `Take step ${i + 1} away`, onclick: () => take(i) }, "×"),
  );
}

function options(step) {
  const one = session.applications[step.application];
  const others = (step.others ??= {});
  const slots = one.inputs
    .filter((input) => !input.leading && !input.mask)
    .map((input) => slot(input.name, input.help, others[input.name], (item) => ((others[input.name] = item), changed())));
  const masks = one.inputs.some((input) => input.mask);
  return [
    one.missing && h("p", { class: "missing" }, one.missing),
    masks && h("p", { class: "hint" }, "What is painted on the picture is its mask."),
    slots,
    form(one, step.typed, one.outputs.map((output) => output.name)),
  ];
}

export function pipelinePanel() {
  const choice = h("select", { "aria-label": "Application of a new step" }, usable().map((one) => h("option", { value: one.name }, labelOf(one.name))));
  const step = session.steps[open];
  return [
    h("p", { class: "lead" }, "Run several applications, one after the other."),
    h("div", { class: "slots" }, slot("image", "the photograph to work on", session.photo, setPhoto)),
    h("ol", { class: "chips", "aria-label": "Steps" }, session.steps.map(chip)),
    h("div", { class: "row" }, choice, h("button", { type: "button", id: "add-step", onclick: () => add(choice.value) }, "Add step")),
    step && options(step),
    h("div", { class: "run" }, h("button", { id: "run", type: "button", class: "primary", disabled: !session.steps.length, onclick: run }, "Run")),
  ];
}
