// What is open: pictures, masks, what stands in the forms. It outlives a reload as far as the server still has it.

import { get } from "./api.js";
import { emit } from "./bus.js";

const KEY = "velatura-session";

export const session = {
  applications: {},
  limits: {},
  page: "inpaint", // an application, "pipeline" or "batch"
  photo: null, // the picture that is worked on
  original: null, // what was opened
  others: {}, // further pictures: others[application][input]
  typed: {}, // typed[application][option], ":model" and ":text" beside them
  masks: new Map(), // id of a picture -> Overlay
  shown: null, // the finished job whose result is looked at
  from: "original",
  mode: "edit", // edit, before, result, slider, side, difference, or the name of a map
  compare: "slider", // how results are looked at first
  steps: [], // of the pipeline
};

export const application = () => session.applications[session.page];
export const typed = (name = session.page) => (session.typed[name] ??= {});
export const others = (name = session.page) => (session.others[name] ??= {});
export const leadingOf = (one) => one.inputs.find((input) => input.leading)?.name;

/** Open another picture to work on. */
export function setPhoto(item) {
  session.photo = session.original = item;
  session.shown = null;
  session.mode = "edit";
  session.from = "original";
  changed();
}

/** Go on from the original or from the result that is shown. */
export function workOn(which) {
  session.from = which;
  const result = session.shown?.results.find((one) => one.what === "result");
  session.photo = which === "result" && result ? result : session.original;
  session.mode = "edit";
  changed();
}

/** What others want to have again after a reload: name -> {save, restore}. */
export const remembered = new Map();

/** Tell everybody what changed. */
export function changed() {
  save();
  emit("session");
}

/** Remember it over a reload. */
function save() {
  sessionStorage.setItem(
    KEY,
    JSON.stringify({
      page: session.page,
      photo: session.photo?.id,
      original: session.original?.id,
      others: session.others,
      typed: session.typed,
      steps: session.steps,
      shown: session.shown?.id,
      from: session.from,
      remembered: Object.fromEntries([...remembered].map(([name, one]) => [name, one.save()])),
    }),
  );
}

// What is typed into a field tells nobody.
globalThis.addEventListener?.("pagehide", save);

/** Take up what was open before a reload, as far as it is still there. */
export async function restore() {
  const saved = JSON.parse(sessionStorage.getItem(KEY) ?? "{}");
  const found = (id) => (id ? get(`/api/images/${id}`).catch(() => null) : null);
  session.page = saved.page ?? session.page;
  session.typed = saved.typed ?? {};
  session.photo = await found(saved.photo);
  session.original = (await found(saved.original)) ?? session.photo;
  for (const [name, images] of Object.entries(saved.others ?? {})) {
    for (const [role, item] of Object.entries(images)) {
      const there = Array.isArray(item) ? (await Promise.all(item.map((one) => found(one.id)))).filter(Boolean) : await found(item?.id);
      if (there) others(name)[role] = there;
    }
  }
  session.steps = saved.steps ?? [];
  for (const [name, one] of remembered) if (saved.remembered?.[name]) one.restore(saved.remembered[name]);
  if (saved.shown) {
    const job = await get(`/api/jobs/${saved.shown}`).catch(() => null);
    if (job?.state === "done") {
      session.shown = job;
      session.from = saved.from ?? "original";
    }
  }
}
