// The masks of the pictures that are open, each of its preview's size.

import { upload } from "./api.js";
import { emit } from "./bus.js";
import { bitmap } from "./bitmaps.js";
import { Mask } from "./mask.js";
import { maskData, maskFile, Overlay } from "./overlay.js";
import { session } from "./session.js";
import { stage } from "./stage.js";

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

/** Make an empty mask, or the one that was sent before the page was loaded anew. */
async function freshMask(item, { width, height }) {
  const mask = new Mask(width, height);
  const sent = session.sent[item.id] && (await bitmap(session.sent[item.id]).catch(() => null));
  if (sent) mask.data.set(maskData(sent, width, height));
  return mask;
}

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
  const { done, undone } = overlay.mask;
  const now = [item.id, done.length, undone.length, done.at(-1)];
  if (!overlay.sent || now.some((part, i) => part !== overlay.sent.as[i])) {
    const name = `${item.name.replace(/\.[^.]*$/, "")}-mask.png`;
    overlay.sent = { as: now, stored: await upload(await maskFile(overlay.mask), name, item.id) };
  }
  return overlay.sent.stored.id;
}
