// The strip of results: each with its parameters, its seed and the command line that repeats it.

import { $, fill, h, download, inWords } from "./dom.js";
import { fileOf, previewOf, remove } from "./api.js";
import { emit, on } from "./bus.js";
import { jobs, show } from "./running.js";
import { labelOf } from "./forms.js";
import { changed, leadingOf, session, setPhoto } from "./session.js";

const FORMATS = { jpeg: "JPEG", png: "PNG", webp: "WebP", tiff: "TIFF", avif: "AVIF" };

function strip() {
  const done = [...jobs.values()].filter((job) => job.state === "done" && job.results.length).reverse();
  fill($("#history"), done.map(entry));
  if (!done.length) fill($("#history"), h("li", { class: "hint" }, "What you make appears here, with the command line that repeats it."));
  details();
}

function entry(job) {
  const now = session.shown?.id === job.id;
  return h(
    "li",
    {},
    h(
      "button",
      { type: "button", class: "result", "data-key": job.id, "aria-pressed": String(now), title: job.command, onclick: () => look(job) },
      h("img", { src: previewOf(job.results[0].id, 256), alt: "", loading: "lazy" }),
      h("span", {}, job.application),
    ),
  );
}

/** Look at a job: its page, its picture. */
function look(job) {
  const one = session.applications[job.application];
  if (one?.draws) session.page = job.application;
  else if (session.applications[session.page]?.draws || session.page === "batch") session.page = job.application;
  show(job);
  if (one?.draws) changed();
}

function details() {
  const job = session.shown;
  const box = $("#details");
  box.hidden = !job || !jobs.has(job.id);
  if (box.hidden) return;
  const result = job.results[0];
  const format = h("select", { "aria-label": "Format" }, Object.entries(FORMATS).map(([name, label]) => h("option", { value: name }, label)));
  const quality = h("input", { type: "number", min: 1, max: 100, value: 92, "aria-label": "Quality", title: "Quality of JPEG, WebP and AVIF" });
  const lossy = () => ["jpeg", "webp", "avif"].includes(format.value);
  format.value = "png";
  quality.hidden = true;
  format.addEventListener("change", () => (quality.hidden = !lossy()));
  const made = job.made_by ? `by ${job.made_by}, ` : "";
  fill(
    box,
    h("span", {}, `${result.width} x ${result.height}, ${made}${inWords(job.seconds)}`),
    h("code", { tabindex: 0 }, job.command),
    h("button", { type: "button", title: "Copy the command line that repeats this", onclick: () => copy(job.command) }, "Copy"),
    h("button", { type: "button", title: "Make the result the picture to work on", onclick: () => setPhoto(result) }, "Go on from here"),
    furtherOf(job),
    format,
    quality,
    h("button", { type: "button", title: "Save the result, with the metadata of the picture", onclick: () => download(fileOf(result.id, format.value === "png" ? "" : format.value, lossy() ? quality.value : "")) }, "Save"),
    h("button", { type: "button", class: "quiet", title: "Remove this result", onclick: () => forget(job) }, "Remove"),
  );
}

/** Links to the masks and pieces that the command line names: they were made on this page. */
function furtherOf(job) {
  const one = session.applications[job.application];
  const leading = one ? leadingOf(one) : "image";
  return Object.entries(job.inputs)
    .filter(([role]) => role !== leading)
    .flatMap(([role, ids]) => [ids].flat().map((id) => h("a", { href: fileOf(id), download: true, title: "Save it: the command line names it" }, labelOf(role))));
}

async function forget(job) {
  await remove(`/api/jobs/${job.id}`).catch((error) => emit("failed", error.message));
  session.shown = null;
  session.mode = "edit";
  if (!session.photo || session.photo.id === job.results[0].id) session.photo = session.original;
  changed();
}

async function copy(text) {
  await navigator.clipboard.writeText(text).then(() => emit("said", "copied"), () => emit("failed", "the browser did not let it be copied"));
}

on("jobs", strip);
on("session", strip);
on("job", (job) => job.state === "done" && strip());
