// The page of the interface, from openapi.json.

import { $, fill, h } from "./dom.js";
import { get } from "./api.js";

const schema = await get("/openapi.json");
const named = (reference) => schema.components.schemas[reference.split("/").at(-1)];

/** Write a type in a few words. */
function words(kind) {
  if (!kind) return "anything";
  if (kind.$ref) return `{${Object.keys(named(kind.$ref).properties ?? {}).join(", ")}}`;
  if (kind.anyOf) return kind.anyOf.map(words).join(" or ");
  if (kind.enum) return kind.enum.join(" | ");
  if (kind.type === "array") return `[${words(kind.items)}, …]`;
  return kind.type ?? "anything";
}

function fields(operation) {
  const found = (operation.parameters ?? []).map((one) => [`${one.name} (${one.in})`, words(one.schema), one.description]);
  for (const { schema: body } of Object.values(operation.requestBody?.content ?? {})) {
    for (const [name, one] of Object.entries(named(body.$ref).properties)) found.push([name, words(one), one.description]);
  }
  return found;
}

function section([path, method, operation]) {
  return h(
    "section",
    {},
    h("h2", {}, h("span", { class: "method" }, method.toUpperCase()), path),
    h("p", {}, operation.description ?? operation.summary),
    h("table", {}, fields(operation).map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell ?? ""))))),
  );
}

const operations = Object.entries(schema.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => [path, method, operation]));
fill($("#paths"), operations.map(section));
