// A place for one picture of the form.

import { h } from "./dom.js";
import { previewOf } from "./api.js";
import { labelOf } from "./forms.js";
import { choose } from "./open.js";
import { changed } from "./session.js";

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

/** Places for several inputs of an application; `kept` holds what lies there, by their names. */
export function slots(inputs, kept) {
  return inputs.map((input) => {
    const put = (item) => {
      kept[input.name] = item;
      changed();
    };
    const clear = () => {
      delete kept[input.name];
      changed();
    };
    return slot(input.name, input.help, kept[input.name], put, input.required ? null : clear);
  });
}

/** Places for further pictures of one kind, such as styles to mix. */
export function further(name, label, kept) {
  const items = (kept[name] ??= []);
  return [
    ...items.map((item, i) =>
      slot(`${name} ${i + 1}`, "", item, (other) => ((items[i] = other), changed()), () => {
        items.splice(i, 1);
        changed();
      }),
    ),
    h("button", { type: "button", class: "quiet", onclick: () => choose((item) => (items.push(item), changed())) }, `+ ${label}`),
  ];
}
