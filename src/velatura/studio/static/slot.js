// A place for one picture of the form.

import { h } from "./dom.js";
import { previewOf } from "./api.js";
import { labelOf } from "./forms.js";
import { choose } from "./open.js";

/** A place for one picture: what lies there, and a button to choose another. */
export function slot(label, hint, item, place, clear) {
  const button = h(
    "button",
    { type: "button", class: "slot", "data-slot": label, title: hint, onclick: () => choose(place) },
    item ? h("img", { src: previewOf(item.id, 256), alt: "" }) : h("span", { class: "plus", "aria-hidden": "true" }, "+"),
    h("span", {}, h("strong", {}, labelOf(label)), h("br"), h("small", {}, item ? `${item.name}, ${item.width} x ${item.height}` : hint)),
  );
  button.place = place;
  return h("div", { class: "slot-row" }, button, item && clear && h("button", { type: "button", class: "quiet", "aria-label": `Leave out ${label}`, onclick: clear }, "×"));
}
