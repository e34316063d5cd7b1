// Building the page.

/** Find the first element that a selector names. */
export const $ = (selector, root = document) => root.querySelector(selector);

/**
 * Make an element: h("button", { class: "primary", onclick: run }, "Run").
 * Properties that begin with "on" are listeners; true sets an attribute, false and null leave it out.
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Put other children in the place of those that are there; the keyboard stays where it was, and the caret. */
export function fill(element, ...children) {
  const focused = element.contains(document.activeElement) && document.activeElement !== element ? document.activeElement : null;
  const place = focused && alike(element, focused).indexOf(focused);
  const caret = focused && "selectionStart" in focused ? [focused.selectionStart, focused.selectionEnd, focused.selectionDirection] : [null];
  element.replaceChildren(...children.flat(Infinity).filter(Boolean));
  if (!focused) return element;
  const same = alike(element, focused);
  const again = same[Math.min(place, same.length - 1)];
  again?.focus({ preventScroll: true });
  if (caret[0] !== null && again?.selectionStart !== null) again?.setSelectionRange?.(...caret);
  return element;
}

/** What tells a thing that takes the keyboard from others, whatever state it is in. */
const called = (one) =>
  [
    one.tagName, one.id, one.name, one.dataset.key, one.dataset.slot, one.getAttribute("aria-label"), one.title,
    one.closest("label")?.querySelector(".name")?.textContent, one.tagName === "BUTTON" && !one.dataset.key && one.textContent,
  ].join("|");

const alike = (root, one) => [...root.querySelectorAll(one.tagName)].filter((other) => called(other) === called(one));

/** Give seconds as people say them: "8 s", "3 min". */
export const inWords = (seconds) => (seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`);

/** Let the browser save an address under a name that the server gives. */
export function download(address) {
  const link = h("a", { href: address, download: true });
  document.body.append(link);
  link.click();
  link.remove();
}
