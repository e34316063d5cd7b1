// Batch: many files, one setting; a table of what became of each, and a zip of the results.

import { $, fill, h, download } from "./dom.js";
import { archiveOf, fileOf, post, remove, upload } from "./api.js";
import { emit, on } from "./bus.js";
import { form, labelOf, params } from "./forms.js";
import { choose } from "./open.js";
import { cancel, jobs, othersOf, submit } from "./running.js";
import { leadingOf, others, session, typed } from "./session.js";
import { further, slots } from "./slot.js";

const OVER = ["done", "failed", "cancelled"];
const rows = []; // {file, state, error, job, result, cells}
let busy = false;
let stopped = false;

const usable = () => Object.values(session.applications).filter((one) => !one.draws && one.name !== "blend");
const chosen = () => session.applications[session.batch ?? "upscale"];
/** The further pictures of a batch are its own: those of an application's page belong to its photograph. */
const keptFor = (one) => `batch:${one.name}`;

function add(files) {
  for (const file of files) rows.push({ file, state: "waiting" });
  table();
}

/** Do all files that wait, two ahead of the queue, so that uploads and work overlap. */
async function start() {
  if (busy) return;
  busy = true;
  stopped = false;
  table();
  const open = new Set();
  for (const row of rows.filter((one) => one.state !== "done")) {
    if (stopped) break;
    const ends = one(row).finally(() => open.delete(ends));
    open.add(ends);
    if (open.size >= 2) await Promise.race(open);
  }
  await Promise.all(open);
  busy = false;
  const failed = rows.filter((row) => row.state === "failed").length;
  emit("said", `${rows.filter((row) => row.state === "done").length} done, ${failed} failed`);
  table();
}

async function one(row) {
  const kind = chosen();
  try {
    set(row, "uploading");
    const item = await upload(row.file, row.file.name);
    const inputs = { ...othersOf(keptFor(kind)), [leadingOf(kind)]: item.id };
    const model = typed(kind.name)[":model"];
    const request = { application: kind.name, inputs, params: params(kind, typed(kind.name)), keep: true };
    if (model && model !== kind.models[0]) request.model = model;
    row.job = (await patiently(() => submit(request))).id;
    set(row, "queued");
    const job = await over(row);
    row.result = job.results.find((each) => each.what === "result");
    set(row, job.state, job.error);
  } catch (error) {
    set(row, "failed", error.message);
  }
}

/** Ask again as long as the queue is full. */
async function patiently(ask) {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (error.status !== 429 || stopped) throw error;
      await new Promise((done) => setTimeout(done, 1000 * (error.retry || 2)));
    }
  }
}

/** Wait until a row's job is over. */
function over(row) {
  return new Promise((resolve, reject) => {
    const check = (news) => {
      const job = jobs.get(row.job);
      const gone = !job && news?.all;
      if (job?.state === "running") set(row, "running", "", job.total ? job.done / job.total : 0);
      if (!gone && !OVER.includes(job?.state)) return;
      waiting.delete(check);
      if (gone) reject(new Error("the studio was started anew; press Start to do it again"));
      else resolve(job);
    };
    waiting.add(check);
    check();
  });
}

const waiting = new Set();
const checkAll = (news) => [...waiting].forEach((check) => check(news));
on("job", () => checkAll());
on("jobs", checkAll);

function set(row, state, error = "", share = null) {
  Object.assign(row, { state, error, share });
  if (parts?.body.contains(row.line)) refresh(row);
}

function stop() {
  stopped = true;
  for (const row of rows) if (row.job && !OVER.includes(row.state)) cancel(row.job);
}

async function zip() {
  try {
    const images = rows.filter((row) => row.result).map((row) => row.result.id);
    const made = await post("/api/archives", { images, name: `velatura-${chosen().name}` });
    if (made.left_out) emit("failed", `${made.left_out} of ${images.length} results are no longer there, and not in the zip`);
    download(archiveOf(made.id));
  } catch (error) {
    emit("failed", error.message);
  }
}

/** Empty the list; what it made goes, too, and gives room for more. */
function empty() {
  for (const row of rows.splice(0)) if (row.job) remove(`/api/jobs/${row.job}`).catch(() => null);
  table();
}

export function batchPanel() {
  const one = chosen();
  const kept = others(keptFor(one));
  const choice = h("select", {
    id: "batch-application", onchange: () => {
      session.batch = choice.value;
      emit("session");
    },
  }, usable().map((each) => h("option", { value: each.name, selected: each === one }, labelOf(each.name))));
  return [
    h("p", { class: "lead" }, "Many files, one setting."),
    h("label", { class: "field" }, h("span", { class: "name" }, "Application"), choice),
    one.missing && h("p", { class: "missing" }, one.missing),
    h("div", { class: "slots" },
      slots(one.inputs.filter((input) => !input.leading), kept),
      one.several.map((name) => further(name, "a further style", kept))),
    form(one, typed(one.name)),
  ];
}

// --- the table: built once, then its cells change, so that a button is never made anew below a finger --------------------

let parts = null;

function build() {
  const button = (label, onclick, properties = {}) => h("button", { type: "button", onclick, ...properties }, label);
  const made = {
    start: button("Start", start, { class: "primary", id: "start-batch" }),
    stop: button("Cancel all", stop),
    zip: button("", zip, { id: "zip" }),
    empty: button("Empty the list", empty, { class: "quiet", title: "Empty the list, and remove the results from the studio" }),
    hint: h("span", { class: "hint" }),
    body: h("tbody"),
  };
  made.table = h("table", {},
    h("thead", {}, h("tr", {}, ["File", "State", "Result"].map((title) => h("th", { scope: "col" }, title)))), made.body);
  made.whole = [
    h("div", { class: "row" },
      button("Add files", () => choose()), button("Add a folder", () => $("#folder").click()),
      made.start, made.stop, made.zip, made.empty, made.hint),
    made.table,
  ];
  return made;
}

function table() {
  if (session.page !== "batch") return;
  parts ??= build();
  for (const row of rows) row.line ??= h("tr");
  if (!$("#sheet").contains(parts.table)) fill($("#sheet"), parts.whole);
  if (rows.length !== parts.body.children.length || rows.some((row, i) => parts.body.children[i] !== row.line)) {
    fill(parts.body, rows.map((row) => row.line));
  }
  for (const row of rows) refresh(row);
  summary();
}

function refresh(row) {
  const shown = [row.state, row.error, row.result?.id].join("|");
  if (row.bar && row.state === "running") row.bar.value = row.share ?? 0;
  if (row.shown === shown) return;
  row.shown = shown;
  row.line.className = row.state;
  row.bar = row.state === "running" ? h("progress", { max: 1, value: row.share ?? 0, "aria-label": "progress" }) : null;
  fill(row.line,
    h("td", {}, row.file.name),
    h("td", {}, row.bar ?? row.state, row.error && h("span", { class: "error" }, `: ${row.error}`)),
    h("td", {}, row.result && h("a", { href: fileOf(row.result.id), download: true }, row.result.name)));
  summary();
}

function summary() {
  const done = rows.filter((row) => row.state === "done").length;
  const ended = rows.filter((row) => OVER.includes(row.state)).length;
  parts.start.disabled = busy || rows.length === done;
  parts.stop.hidden = !busy;
  parts.zip.disabled = !done;
  parts.zip.textContent = `Zip of ${done} result${done === 1 ? "" : "s"}`;
  parts.empty.disabled = busy || !rows.length;
  parts.hint.textContent = rows.length ? `${ended} of ${rows.length}` : "Drop files or a folder here.";
  parts.table.hidden = !rows.length;
}

on("batch-files", add);
on("session", table);
