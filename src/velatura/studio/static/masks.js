// The masks of the pictures that are open, each of its preview's size. The browser keeps them over a reload.

import { upload } from "./api.js";
import { emit, on } from "./bus.js";
import { bitmap } from "./bitmaps.js";
import { Mask } from "./mask.js";
import { maskData, maskFile, Overlay } from "./overlay.js";
import { session } from "./session.js";
import { stage } from "./stage.js";

const KEY = "velatura-mask-";
const REST = 300; // milliseconds after a change

/** Give the mask of a picture with its veil; made when it is first asked for. */
export async function maskOf(item) {
  const image = await bitmap(item.id);
  if (!session.masks.has(item.id)) {
    // Going on from a result of the same size: the mask goes along, with all that can be undone.
    const first = item.id === session.photo?.id && session.masks.get(session.original?.id);
    const fits = first && first.mask.width === image.width && first.mask.height === image.height;
    session.masks.set(item.id, fits ? first : new Overlay(await freshMask(item, image)));
  }
  return session.masks.get(item.id);
}

/** Make an empty mask, or the one that was painted before the page was loaded anew. */
async function freshMask(item, { width, height }) {
  const mask = new Mask(width, height);
  const kept = sessionStorage.getItem(KEY + item.id);
  const image = kept && (await createImageBitmap(fileOfText(kept)).catch(() => null));
  if (image) mask.data.set(maskData(image, width, height));
  return mask;
}

const stateOf = ({ done, undone }) => [done.length, undone.length, done.at(-1)];
const same = (one, other) => one?.every((part, i) => part === other[i]) ?? false;

/** Write the masks that changed where the browser finds them after a reload. */
async function keep() {
  for (const [id, overlay] of session.masks) {
    const now = [id, ...stateOf(overlay.mask)];
    if (now.every((part, i) => !i || !part) || same(overlay.kept?.get(id), now)) continue;
    (overlay.kept ??= new Map()).set(id, now);
    try {
      if (overlay.mask.empty) sessionStorage.removeItem(KEY + id);
      else sessionStorage.setItem(KEY + id, await textOfFile(await maskFile(overlay.mask)));
    } catch {
      // No room: then it lives as long as the page.
    }
  }
}

let rest = 0;
on("mask", () => {
  clearTimeout(rest);
  rest = setTimeout(keep, REST);
});

const textOfFile = (blob) =>
  new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.split(",")[1]);
    reader.onerror = failed;
    reader.readAsDataURL(blob);
  });

const fileOfText = (text) => new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], { type: "image/png" });

/** Do one change of a mask that can be undone. */
export function change(overlay, work) {
  overlay.mask.begin();
  overlay.draw(work(overlay.mask));
  overlay.mask.end();
  emit("mask");
  stage.draw();
}

export function undo(overlay) {
  overlay.draw(overlay.mask.undo());
  emit("mask");
  stage.draw();
}

export function redo(overlay) {
  overlay.draw(overlay.mask.redo());
  emit("mask");
  stage.draw();
}

/** Put a picture in the place of a mask: a file, or what restoration found. */
export async function loadMask(overlay, source) {
  const image = source instanceof Blob ? await createImageBitmap(source) : await bitmap(source.id);
  const { width, height } = overlay.mask;
  change(overlay, (mask) => mask.load(maskData(image, width, height)));
}

/** Send a mask to the server, which brings it to the picture's size; the same mask is sent once. */
export async function sendMask(overlay, item) {
  const now = [item.id, ...stateOf(overlay.mask)];
  if (!same(overlay.sent?.as, now)) {
    const name = `${item.name.replace(/\.[^.]*$/, "")}-mask.png`;
    overlay.sent = { as: now, stored: await upload(await maskFile(overlay.mask), name, item.id) };
  }
  return overlay.sent.stored.id;
}
