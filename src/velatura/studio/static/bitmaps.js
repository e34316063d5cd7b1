// Previews of stored images as bitmaps, the last few kept.

import { previewOf } from "./api.js";

const KEPT = 12;
const kept = new Map();

/** Give the preview of an image. */
export async function bitmap(id) {
  const found = kept.get(id) ?? load(id);
  kept.delete(id);
  kept.set(id, found);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  return found;
}

async function load(id) {
  const response = await fetch(previewOf(id));
  if (!response.ok) {
    kept.delete(id);
    throw new Error((await response.json().catch(() => ({}))).error ?? "the picture cannot be shown");
  }
  return createImageBitmap(await response.blob());
}

/** Give the pixels of a bitmap, RGBA. */
export function pixelsOf(image, width = image.width, height = image.height) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}
