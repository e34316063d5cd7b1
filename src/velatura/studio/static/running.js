// Work goes out, news come in: submitting, progress, cancelling.

import { $, fill, h, inWords } from "./dom.js";
import { post } from "./api.js";
import { emit, on } from "./bus.js";
import { params } from "./forms.js";
import { sendMask } from "./masks.js";
import { pieceInputs } from "./place.js";
import { application, changed, leadingOf, others, session, typed } from "./session.js";

export const jobs = new Map(); // id -> job, as the server last told
const me = (sessionStorage["velatura-me"] ??= crypto.getRandomValues(new Uint32Array(2)).join("-"));
const told = new Set(JSON.parse(sessionStorage["velatura-told"] ?? "[]")); // jobs of this page that it has shown

/** Give the masks that a picture needs: the painted one where there is one. */
async function masksFor(one, item) {
  const found = {};
  const overlay = session.masks.get(item.id);
  for (const input of one.inputs.filter((each) => each.mask)) {
    if (overlay && !overlay.mask.empty) found[input.name] = await sendMask(overlay, item);
  }
  return found;
}

/** Give the further pictures of an application by their ids. */
export function othersOf(name) {
  const found = {};
  for (const [role, item] of Object.entries(others(name))) {
    if (Array.isArray(item) ? item.length : item) found[role] = Array.isArray(item) ? item.map((one) => one.id) : item.id;
  }
  return found;
}

/** Put together what is asked for. */
async function asked(one) {
  const typedHere = typed(one.name);
  const request = { application: one.name, inputs: othersOf(one.name), params: params(one, typedHere) };
  if (typedHere[":model"] && typedHere[":model"] !== one.models[0]) request.model = typedHere[":model"];
  if (one.draws) {
    const [text, to] = [typedHere[":text"], typedHere[":to"]];
    if (one.name === "imagine" && text && to) {
      delete request.params.count;
      request.params.interpolate = [text, to];
    } else if (text) request.text = text;
    return request;
  }
  const leading = leadingOf(one);
  if (!session.photo) throw new Error(`open ${leading} first: drop a picture, paste one, or press Open`);
  request.inputs[leading] = session.photo.id;
  if (one.name === "blend") Object.assign(request, await pieceInputs(request));
  else Object.assign(request.inputs, await masksFor(one, session.photo));
  const { box, mask_color: colour } = request.params;
  if (one.name === "inpaint" && !request.inputs.mask && !box && !colour && !session.photo.alpha) {
    throw new Error("paint over what is to be filled first");
  }
  return request;
}

async function pipelineAsked() {
  if (!session.photo) throw new Error("open a picture first");
  const steps = [];
  for (const step of session.steps) {
    const one = session.applications[step.application];
    const inputs = Object.fromEntries(Object.entries(step.others ?? {}).map(([role, item]) => [role, item.id]));
    Object.assign(inputs, await masksFor(one, session.photo));
    const model = step.typed[":model"] && step.typed[":model"] !== one.models[0] ? step.typed[":model"] : null;
    steps.push({ application: step.application, inputs, params: params(one, step.typed), model });
  }
  return { application: "pipeline", inputs: { image: session.photo.id }, steps };
}

/** Ask for what the page shows. */
export async function run() {
  if (asking) return;
  asking = true;
  // A disabled button would lose the keyboard.
  $("#run")?.setAttribute("aria-disabled", "true");
  try {
    const { id } = await submit(session.page === "pipeline" ? await pipelineAsked() : await asked(application()));
    // What is quick may be over by now, and has said so.
    if (jobs.get(id)?.state === "queued") emit("said", "queued");
  } catch (error) {
    emit("failed", error.message);
  } finally {
    asking = false;
    $("#run")?.removeAttribute("aria-disabled");
  }
}

let asking = false;

/** Ask for anything; its result is shown when it is there. */
export async function submit(request) {
  const job = await post("/api/jobs", { ...request, by: me });
  // News may have come before the answer.
  if (!jobs.has(job.id)) heard(job);
  return job;
}

const OVER = ["done", "failed", "cancelled"];

function heard(job) {
  jobs.set(job.id, job);
  emit("job", job);
  // What a batch makes is shown in its table.
  if (job.by === me && !job.keep && OVER.includes(job.state) && !told.has(job.id)) {
    told.add(job.id);
    if (job.state === "failed") emit("failed", job.error);
    if (job.state === "cancelled") emit("said", "cancelled");
    if (job.state === "done") show(job);
  }
  showProgress();
}

/** Look at a finished job. */
export function show(job) {
  for (const line of job.warnings) emit("said", line);
  const one = session.applications[job.application];
  if (one?.draws) {
    emit("drawn", job);
    return;
  }
  session.shown = job;
  session.mode = session.compare;
  emit("said", `done in ${inWords(job.seconds)}${job.warnings.length ? `; ${job.warnings.join("; ")}` : ""}`);
  if (session.from === "result") session.photo = job.results.find((one) => one.what === "result") ?? session.photo;
  changed();
}

function showProgress() {
  const open = [...jobs.values()].filter((job) => !OVER.includes(job.state));
  const running = open.find((job) => job.state === "running") ?? open[0];
  const box = $("#progress");
  box.hidden = !running;
  if (!running) return;
  const share = running.total ? running.done / running.total : null;
  const left = running.left === null ? "" : `, ${inWords(running.left)} left`;
  const waiting = open.length > 1 ? `, ${open.length - 1} more wait${open.length > 2 ? "" : "s"}` : "";
  // Built once: a button that is made anew ten times a second hears no click, and loses the keyboard.
  bar ??= progressBar(box);
  bar.id = running.id;
  bar.what.textContent = `${running.application}: ${running.title}`;
  if (share === null) bar.progress.removeAttribute("value");
  else bar.progress.value = share;
  bar.stage.textContent = `${running.stage || running.state}${share === null ? "" : ` ${Math.round(100 * share)} %`}${left}${waiting}`;
}

let bar = null;

function progressBar(box) {
  const made = {
    what: h("span"),
    progress: h("progress", { max: 1, "aria-label": "progress" }),
    stage: h("span", { class: "hint" }),
  };
  const button = h("button", { type: "button", id: "cancel", onclick: () => cancel(made.id), title: "Escape" }, "Cancel");
  fill(box, made.what, made.progress, made.stage, button);
  return made;
}

export async function cancel(id) {
  await post(`/api/jobs/${id}/cancel`).catch((error) => emit("failed", error.message));
}

/** Cancel what runs. */
export function cancelRunning() {
  const running = [...jobs.values()].find((job) => job.state === "running");
  if (running) cancel(running.id);
}

/** Listen to the server; after a reload, or when the line was broken, all jobs come first. */
export function listen() {
  const source = new EventSource(`/api/events?by=${me}`);
  source.addEventListener("jobs", (event) => {
    jobs.clear();
    for (const job of JSON.parse(event.data)) jobs.set(job.id, job);
    emit("jobs", { all: true });
    // What this page waits for may have ended meanwhile.
    for (const job of [...jobs.values()]) if (job.by === me) heard(job);
    showProgress();
    if (source.broken) emit("said", "connected again");
    source.broken = false;
  });
  source.addEventListener("job", (event) => heard(JSON.parse(event.data)));
  source.addEventListener("removed", (event) => {
    jobs.delete(JSON.parse(event.data).id);
    emit("jobs");
    showProgress();
  });
  source.addEventListener("error", () => {
    source.broken = true;
    emit("failed", "the studio does not answer; trying again…");
  });
  addEventListener("pagehide", () => {
    sessionStorage["velatura-told"] = JSON.stringify([...told].filter((id) => jobs.has(id)));
  });
}

on("submit", submit);
