// Forms from the options' JSON schema: a new option appears by itself.

import { h } from "./dom.js";

/** What people look for first; everything else stands under "More options", in its own order. */
const FIRST = [
  "method", "scale", "size", "realism", "strength", "scratches", "sensitivity", "keep_color", "candidates",
  "count", "truncation", "seed", "evidence", "consistent",
];

/** Give the parts of a schema that count: its kind without null, and whether null was allowed. */
export function kindOf(schema) {
  const kinds = (schema.anyOf ?? [schema]).filter((one) => one.type !== "null");
  const optional = (schema.anyOf ?? []).length > kinds.length;
  const one = kinds.length === 1 ? kinds[0] : {};
  return { ...one, optional, type: one.enum ? "choice" : (one.type ?? "text") };
}

/** Turn what was typed into what is sent; undefined leaves the option out. */
export function valueOf(schema, typed) {
  const kind = kindOf(schema);
  if (typed === "" || typed === null || typed === undefined) return undefined;
  let value = typed;
  if (kind.type === "boolean") value = typed === true || typed === "true";
  else if (kind.type === "number" || kind.type === "integer") value = Number(typed);
  return value === schema.default ? undefined : value;
}

/** Write a name as people read it. */
export const labelOf = (name) => (name[0].toUpperCase() + name.slice(1)).replaceAll("_", " ");

/**
 * Make the form of an application.
 *
 * @param {object} application - as /api/applications describes it
 * @param {object} typed - what stands in the fields; it is kept up to date
 */
export function form(application, typed, skipped = []) {
  const names = Object.keys(application.params).filter((name) => !skipped.includes(name));
  const first = names.filter((name) => FIRST.includes(name));
  first.sort((a, b) => FIRST.indexOf(a) - FIRST.indexOf(b));
  const rest = names.filter((name) => !first.includes(name));
  const make = (name) => field(name, application.params[name], typed);
  return h(
    "div",
    { class: "form" },
    model(application, typed),
    first.map(make),
    rest.length > 0 && h("details", {}, h("summary", {}, "More options"), rest.map(make)),
  );
}

/** Give the options that were typed, as they are sent. */
export function params(application, typed) {
  const found = {};
  for (const [name, schema] of Object.entries(application.params)) {
    const value = valueOf(schema, typed[name]);
    if (value !== undefined) found[name] = value;
  }
  return found;
}

function model(application, typed) {
  if (application.models.length < 2) return null;
  const options = application.models.map((name) => h("option", { value: name, selected: typed[":model"] === name }, name));
  return row("model", "what does the work", h("select", { onchange: (event) => (typed[":model"] = event.target.value) }, options));
}

function field(name, schema, typed) {
  const kind = kindOf(schema);
  const set = (value) => (typed[name] = value);
  const now = typed[name] ?? schema.default ?? "";
  const unit = schema.unit ? `, ${schema.unit}` : "";
  const hint = `${schema.description ?? ""}${unit}`;
  if (kind.type === "boolean" && !kind.optional) {
    return check(name, hint, h("input", { type: "checkbox", checked: now === true || now === "true", onchange: (event) => set(event.target.checked) }));
  }
  if (kind.type === "choice" || kind.type === "boolean") {
    const words = kind.type === "choice" ? kind.enum : ["true", "false"];
    const shown = { true: "on", false: "off" };
    const options = words.map((word) => h("option", { value: word, selected: String(now) === word }, shown[word] ?? word));
    if (kind.optional) options.unshift(h("option", { value: "" }, "as usual"));
    return row(name, hint, h("select", { onchange: (event) => set(event.target.value) }, options));
  }
  if (kind.type === "number" || kind.type === "integer") return row(name, hint, ...number(kind, now, set));
  const placeholder = kind.optional || now === "" ? "as usual" : "";
  const text = Array.isArray(now) ? now.join(",") : typeof now === "object" ? "" : now;
  return row(name, hint, h("input", { type: "text", value: text, placeholder, maxlength: 200, oninput: (event) => set(event.target.value) }));
}

function number(kind, now, set) {
  const least = kind.minimum ?? kind.exclusiveMinimum;
  const most = kind.maximum ?? kind.exclusiveMaximum;
  const step = kind.type === "integer" ? 1 : "any";
  const box = h("input", {
    type: "number", value: now, min: least, max: most, step,
    placeholder: kind.optional ? "usual" : "",
    oninput: () => {
      set(box.value);
      if (slider && box.value !== "") slider.value = box.value;
      if (slider) slider.classList.toggle("unset", box.value === "");
    },
  });
  const narrow = kind.type === "number" && least !== undefined && most !== undefined && most - least <= 10;
  const slider = narrow && h("input", {
    type: "range", min: least, max: most, step: (most - least) / 100, value: now === "" ? least : now, class: now === "" ? "unset" : null,
    "aria-hidden": "true", tabindex: -1,
    oninput: () => {
      box.value = Number(slider.value).toFixed(2).replace(/\.?0+$/, "");
      slider.classList.remove("unset");
      set(box.value);
    },
  });
  return [slider, box].filter(Boolean);
}

const row = (name, hint, ...inputs) =>
  h("label", { class: "field" }, h("span", { class: "name" }, labelOf(name)), h("span", { class: "inputs" }, ...inputs), h("small", {}, hint));

const check = (name, hint, input) =>
  h("label", { class: "field check" }, input, h("span", { class: "name" }, labelOf(name)), h("small", {}, hint));
