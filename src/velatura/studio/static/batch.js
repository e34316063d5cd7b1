// Batch: many files, one setting; a table of what became of each, and a zip of the results.

import { $, fill, h, download } from "./dom.js";
import { fileOf, post, upload } from "./api.js";
import { emit, on } from "./bus.js";
import { form, labelOf, params } from "./forms.js";
import { choose } from "./open.js";
import { cancel, jobs, othersOf } from "./running.js";
import { leadingOf, session, typed } from "./session.js";

const rows = []; // {file, state, error, job, result}
let busy = false;
let stopped = false;

const usable = () => Object.values(session.applications).filter((one) => !one.draws && one.name !== "blend");
const chosen = () => session.applications[session.batch ?? "upscale"];

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
    const inputs = { ...othersOf(kind.name), [leadingOf(kind)]: item.id };
    const model = typed(kind.name)[":model"];
    const request = { application: kind.name, inputs, params: params(kind, typed(kind.name)) };
    if (model && model !== kind.models[0]) request.model = model;
    row.job = (await patiently(() => post("/api/jobs", request))).id;
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
  return new Promise((resolve) => {
    const check = () => {
      const job = jobs.get(row.job);
      if (!job) return;
      if (job.state === "running") set(row, "running", "", job.total ? job.done / job.total : 0);
      if (["done", "failed", "cancelled"].includes(job.state)) {
        waiting.delete(check);
        resolve(job);
      }
    };
    waiting.add(check);
    check();
  });
}

const waiting = new Set();
const checkAll = () => [...waiting].forEach((check) => check());
on("job", checkAll);
on("jobs", checkAll);

function set(row, state, error = "", share = null) {
  Object.assign(row, { state, error, share });
  table();
}

function stop() {
  stopped = true;
  for (const row of rows) if (row.job && !["done", "failed", "cancelled"].includes(row.state)) cancel(row.job);
}

async function zip() {
  try {
    const images = rows.filter((row) => row.result).map((row) => row.result.id);
    download(fileOf((await post("/api/archives", { images, name: `velatura-${chosen().name}` })).id));
  } catch (error) {
    emit("failed", error.message);
  }
}

export function batchPanel() {
  const one = chosen();
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
    form(one, typed(one.name)),
  ];
}

function table() {
  if (session.page !== "batch") return;
  const done = rows.filter((row) => row.state === "done").length;
  const over = rows.filter((row) => ["done", "failed", "cancelled"].includes(row.state)).length;
  fill(
    $("#sheet"),
    h("div", { class: "row" },
      h("button", { type: "button", onclick: () => choose() }, "Add files"),
      h("button", { type: "button", onclick: () => $("#folder").click() }, "Add a folder"),
      h("button", { type: "button", class: "primary", id: "start-batch", disabled: busy || rows.length === done, onclick: start }, "Start"),
      busy && h("button", { type: "button", onclick: stop }, "Cancel all"),
      h("button", { type: "button", id: "zip", disabled: !done, onclick: zip }, `Zip of ${done} result${done === 1 ? "" : "s"}`),
      h("button", { type: "button", class: "quiet", disabled: busy || !rows.length, onclick: () => (rows.splice(0), table()) }, "Empty the list"),
      h("span", { class: "hint" }, rows.length ? `${over} of ${rows.length}` : "Drop files or a folder here."),
    ),
    rows.length > 0 && h("table", {},
      h("thead", {}, h("tr", {}, ["File", "State", ""].map((title) => h("th", { scope: "col" }, title)))),
      h("tbody", {}, rows.map((row) => h("tr", { class: row.state },
        h("td", {}, row.file.name),
        h("td", {}, row.state === "running" && row.share !== null ? h("progress", { max: 1, value: row.share }) : row.state, row.error && h("span", { class: "error" }, `: ${row.error}`)),
        h("td", {}, row.result && h("a", { href: fileOf(row.result.id), download: true }, row.result.name)),
      ))),
    ),
  );
}

on("batch-files", add);
on("session", table);
