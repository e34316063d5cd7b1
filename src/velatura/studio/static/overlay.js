// A mask as pixels: the veil over the picture, PNG files, and back.

import { pixelsOf } from "./bitmaps.js";

// Two stripes: on whatever photograph, at least one of them is seen.
const VEIL = [[255, 64, 96], [255, 190, 205]];
const DENSITY = 0.55;
const STRIPES = 150; // along the longer side

/** A canvas of a mask's size that shows it as a striped veil. */
export class Overlay {
  constructor(mask) {
    this.mask = mask;
    this.canvas = new OffscreenCanvas(mask.width, mask.height);
    this.context = this.canvas.getContext("2d");
    this.draw({ left: 0, top: 0, width: mask.width, height: mask.height });
  }

  /** Draw a rectangle anew. */
  draw(area) {
    if (!area?.width || !area.height) return;
    const image = this.context.createImageData(area.width, area.height);
    const stripe = Math.max(Math.round(Math.max(this.mask.width, this.mask.height) / STRIPES), 1);
    for (let row = 0, out = 0; row < area.height; row++) {
      const diagonal = area.top + row + area.left;
      let index = (area.top + row) * this.mask.width + area.left;
      for (let column = 0; column < area.width; column++, out += 4) {
        const colour = VEIL[Math.floor((diagonal + column) / stripe) % 2];
        image.data[out] = colour[0];
        image.data[out + 1] = colour[1];
        image.data[out + 2] = colour[2];
        image.data[out + 3] = DENSITY * this.mask.data[index++];
      }
    }
    this.context.putImageData(image, area.left, area.top);
  }
}

/** Write a mask as a PNG, white = change. */
export function maskFile(mask) {
  const canvas = new OffscreenCanvas(mask.width, mask.height);
  const image = new ImageData(mask.width, mask.height);
  mask.data.forEach((value, i) => {
    image.data.fill(value, 4 * i, 4 * i + 3);
    image.data[4 * i + 3] = 255;
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

/** Read a picture as a mask of another size: what is bright and opaque counts. */
export function maskData(image, width, height) {
  const { data } = pixelsOf(image, width, height);
  const mask = new Uint8Array(width * height);
  for (let i = 0; i < mask.length; i++) {
    const grey = 0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2];
    mask[i] = Math.round((grey * data[4 * i + 3]) / 255);
  }
  return mask;
}
