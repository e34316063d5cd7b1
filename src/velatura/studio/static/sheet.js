// Sheets of draws: generate and imagine. Keep a draw, vary it, or go from one to another.

import { $, fill, h, download } from "./dom.js";
import { archiveOf, fileOf, post, previewOf } from "./api.js";
import { emit, on } from "./bus.js";
import { params } from "./forms.js";
import { jobs, submit } from "./running.js";
import { application, changed, session, setPhoto, typed } from "./session.js";

const shown = {}; // job by application
const picked = new Set(); // numbers of draws

/** Give the latest sheet of an application. */
const latest = (name) =>
  shown[name] ?? [...jobs.values()].filter((job) => job.application === name && job.state === "done").at(-1);

function draw() {
  const one = application();
  if (!one?.draws) return;
  const job = latest(one.name);
  if (!job) {
    fill($("#sheet"), h("p", { class: "lead" }, one.name === "imagine" ? "Write what is to be seen, and press Draw." : "Choose a model, and press Draw."));
    return;
  }
  const draws = job.results.filter((result) => result.what === "draw");
  for (const number of picked) if (number >= draws.length) picked.delete(number);
  fill(
    $("#sheet"),
    actions(job, draws),
    h("ul", { class: "draws", "aria-label": "Draws" }, draws.map((result, number) =>
      h("li", {}, h("button", {
        type: "button", "aria-pressed": String(picked.has(number)), "aria-label": `Draw ${number + 1}`,
        onclick: () => {
          picked.has(number) ? picked.delete(number) : picked.add(number);
          draw();
        },
      }, h("img", { src: previewOf(result.id, 256), alt: "" }))))),
    h("div", { class: "row" }, h("code", { tabindex: 0 }, job.command)),
  );
  unknown(job);
}

function actions(job, draws) {
  const chosen = [...picked].map((number) => draws[number]);
  const amount = h("input", { type: "range", min: 0.05, max: 1, step: 0.05, value: session.amount ?? 0.4, "aria-label": "How much to vary",
    oninput: () => (session.amount = Number(amount.value)) });
  const one = chosen.length === 1;
  const latents = job.results.find((result) => result.what === "latents");
  return h("div", { class: "row" },
    h("span", { class: "hint" }, picked.size ? `${picked.size} picked` : "Pick draws to keep, vary or mix them."),
    h("button", { type: "button", disabled: !chosen.length, onclick: () => keep(chosen) }, "Keep"),
    h("button", { type: "button", id: "vary", disabled: !one, onclick: () => vary(job, [...picked][0], draws) }, "Vary"),
    amount,
    job.application === "generate" && h("button", { type: "button", id: "between", disabled: chosen.length !== 2, onclick: () => between(job) }, "From one to the other"),
    h("button", { type: "button", disabled: !one, onclick: () => workOn(chosen[0]) }, "Work on it"),
    latents && h("button", { type: "button", title: "What the draws were made from: the command line takes it", onclick: () => download(fileOf(latents.id)) }, "Save latents"),
  );
}

async function keep(results) {
  try {
    const zipped = results.length > 1 && (await post("/api/archives", { images: results.map((each) => each.id), name: "draws" }));
    download(zipped ? archiveOf(zipped.id) : fileOf(results[0].id));
  } catch (error) {
    emit("failed", error.message);
  }
}

/** Give those options of a job that it had. */
const kept = (job, ...names) => Object.fromEntries(names.filter((name) => job.params[name] !== undefined).map((name) => [name, job.params[name]]));

const tell = (error) => emit("failed", error.message);
const seed = () => Math.floor(Math.random() * 1e6);

/** Draw near one draw: near its latents, or in its style. */
function vary(job, number, draws) {
  const one = application();
  const count = Math.max(Number(params(one, typed()).count ?? 1), 4);
  const request = { application: job.application, model: job.model, params: { ...kept(job, "upscale"), count, seed: seed() } };
  if (job.application === "generate") {
    const latents = job.results.find((result) => result.what === "latents");
    submit({ ...request, inputs: { latents: latents.id }, vary: [number, session.amount ?? 0.4] }).catch(tell);
  } else submit({ ...request, text: job.text, inputs: { style: draws[number].id } }).catch(tell);
  picked.clear();
}

function between(job) {
  const asked = { ...kept(job, "truncation", "upscale", "class_name"), seed: job.params.seed ?? 0, interpolate: [...picked], frames: 12 };
  if (job.inputs.latents) {
    emit("failed", "go between two draws of one seed; these were varied");
    return;
  }
  submit({ application: "generate", model: job.model, params: asked }).catch(tell);
  picked.clear();
}

function workOn(result) {
  session.page = "upscale";
  setPhoto(result);
}

/** Mark the words of the text that the model does not know. */
function unknown(job) {
  const place = $("#unknown");
  if (!place || !job.text) return;
  const words = job.text.split(/(\s+)/).map((word) => {
    const plain = word.toLowerCase().replace(/[^a-z0-9'-]/g, "");
    return job.unknown.includes(plain) ? h("mark", { title: "the model does not know this word" }, word) : word;
  });
  fill(place, job.unknown.length ? [h("span", {}, "Unknown words do not count: "), ...words] : []);
}

on("drawn", (job) => {
  shown[job.application] = job;
  picked.clear();
  emit("said", `${job.results.filter((result) => result.what === "draw").length} draws`);
  if (session.page !== job.application) session.page = job.application;
  changed();
});
on("session", draw);
on("jobs", draw);
