// Blending by hand: a piece lies on the destination, is dragged, scaled and turned, and shown as it will look.

import { post } from "./api.js";
import { bitmap, pixelsOf } from "./bitmaps.js";
import { emit } from "./bus.js";
import { maskOf, sendMask } from "./masks.js";
import { blended } from "./poisson.js";
import { changed, others, remembered, session, typed } from "./session.js";
import { stage } from "./stage.js";

const SIDE = 360; // pixels of the live preview's longer side: what can be solved while the hand moves
const HANDLE = 9;

/** Where the piece lies: its middle and scale in pixels of the destination, degrees clockwise. */
export const placed = { x: 0, y: 0, scale: 1, degrees: 0, source: null, cutting: false, live: null, millis: 0 };

remembered.set("piece", {
  save: () => ({ x: placed.x, y: placed.y, scale: placed.scale, degrees: placed.degrees, source: placed.source, cutting: placed.cutting }),
  restore: (saved) => Object.assign(placed, saved),
});

/** Lay a new piece into the middle, no larger than the destination. */
export function settle(source, destination, at = null, scale = null) {
  placed.source = source.id;
  placed.degrees = 0;
  placed.scale = scale ?? Math.min(1, (0.7 * destination.width) / source.width, (0.7 * destination.height) / source.height);
  const [left, top] = at ?? [(destination.width - source.width * placed.scale) / 2, (destination.height - source.height * placed.scale) / 2];
  placed.x = left + (source.width * placed.scale) / 2;
  placed.y = top + (source.height * placed.scale) / 2;
  placed.live = null;
}

/** Give the piece as a canvas of its preview's size, transparent where its mask is black. */
async function pieceCanvas(source) {
  const image = await bitmap(source.id);
  const overlay = await maskOf(source);
  const now = [source.id, overlay.mask.done.length, overlay.mask.done.at(-1)];
  if (placed.canvas && now.every((part, i) => part === placed.canvas.as[i])) return placed.canvas;
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  if (!overlay.mask.empty) {
    const pixels = context.getImageData(0, 0, image.width, image.height);
    overlay.mask.data.forEach((value, i) => (pixels.data[4 * i + 3] = Math.round((pixels.data[4 * i + 3] * value) / 255)));
    context.putImageData(pixels, 0, 0);
  }
  placed.canvas = Object.assign(canvas, { as: now });
  return canvas;
}

/** Give the layers that show the piece where it lies. */
export async function placingLayers(destination) {
  const source = others("blend").source;
  if (!source) return [];
  if (placed.source !== source.id) settle(source, destination);
  const canvas = await pieceCanvas(source);
  const image = await bitmap(destination.id);
  refresh(image, destination, source, canvas);
  return [(context, view) => paint(context, view, image, destination, source, canvas)];
}

/** Corners of the piece's frame in pixels of the destination's preview. */
function frame(destination, source, ratio) {
  const turn = (placed.degrees * Math.PI) / 180;
  const [w, h] = [(source.width * placed.scale) / 2, (source.height * placed.scale) / 2];
  return [[-w, -h], [w, -h], [w, h], [-w, h]].map(([x, y]) => ({
    x: (placed.x + x * Math.cos(turn) - y * Math.sin(turn)) * ratio,
    y: (placed.y + x * Math.sin(turn) + y * Math.cos(turn)) * ratio,
  }));
}

function paint(context, view, image, destination, source, canvas) {
  const ratio = image.width / destination.width;
  if (placed.live) {
    const { left, top, width, height, pixels } = placed.live;
    context.drawImage(pixels, view.x + left * view.scale, view.y + top * view.scale, width * view.scale, height * view.scale);
  } else {
    context.save();
    const middle = view.toScreen(placed.x * ratio, placed.y * ratio);
    context.translate(middle.x, middle.y);
    context.rotate((placed.degrees * Math.PI) / 180);
    const size = placed.scale * ratio * view.scale;
    context.drawImage(canvas, (-source.width * size) / 2, (-source.height * size) / 2, source.width * size, source.height * size);
    context.restore();
  }
  const corners = frame(destination, source, ratio).map((corner) => view.toScreen(corner.x, corner.y));
  context.beginPath();
  corners.forEach((corner) => context.lineTo(corner.x, corner.y));
  context.closePath();
  for (const [style, dash] of [["#000a", []], ["#fff", [6, 4]]]) {
    context.setLineDash(dash);
    context.strokeStyle = style;
    context.lineWidth = 1;
    context.stroke();
  }
  context.setLineDash([]);
  for (const point of [corners[2], knob(corners)]) {
    context.beginPath();
    context.arc(point.x, point.y, HANDLE - 2, 0, 2 * Math.PI);
    context.fillStyle = "#fff";
    context.fill();
    context.strokeStyle = "#1f6f6b";
    context.lineWidth = 2;
    context.stroke();
  }
}

/** The handle that turns, beyond the middle of the upper edge. */
function knob([first, second, , last]) {
  const middle = { x: (first.x + second.x) / 2, y: (first.y + second.y) / 2 };
  const up = { x: first.x - last.x, y: first.y - last.y };
  const length = Math.hypot(up.x, up.y) || 1;
  return { x: middle.x + (up.x / length) * 26, y: middle.y + (up.y / length) * 26 };
}

/** Solve the seam at the size of the screen, and show it. */
function refresh(image, destination, source, canvas) {
  const started = performance.now();
  const ratio = image.width / destination.width;
  const corners = frame(destination, source, ratio);
  const bound = (pick, best, most) => Math.min(Math.max(best(...corners.map(pick)), 0), most);
  const left = Math.floor(bound((corner) => corner.x, Math.min, image.width));
  const top = Math.floor(bound((corner) => corner.y, Math.min, image.height));
  const width = Math.ceil(bound((corner) => corner.x, Math.max, image.width)) - left;
  const height = Math.ceil(bound((corner) => corner.y, Math.max, image.height)) - top;
  placed.live = null;
  if (width < 2 || height < 2) return;
  const shrink = Math.min(1, SIDE / Math.max(width, height));
  const [w, h] = [Math.max(Math.round(width * shrink), 2), Math.max(Math.round(height * shrink), 2)];
  const behind = new OffscreenCanvas(w, h);
  const above = new OffscreenCanvas(w, h);
  const settings = { willReadFrequently: true };
  const [under, over] = [behind.getContext("2d", settings), above.getContext("2d", settings)];
  under.drawImage(image, left, top, width, height, 0, 0, w, h);
  over.translate((placed.x * ratio - left) * (w / width), (placed.y * ratio - top) * (h / height));
  over.rotate((placed.degrees * Math.PI) / 180);
  const size = placed.scale * ratio * (w / width);
  over.drawImage(canvas, (-source.width * size) / 2, (-source.height * size) / 2, source.width * size, source.height * size);
  over.setTransform(1, 0, 0, 1, 0, 0);
  const [piece, ground] = [over.getImageData(0, 0, w, h), under.getImageData(0, 0, w, h)];
  const method = typed("blend").method;
  const made = method === "paste" ? null : blended(piece.data, ground.data, w, h);
  if (made) under.putImageData(new ImageData(made, w, h), 0, 0);
  else under.drawImage(above, 0, 0);
  placed.live = { left, top, width, height, pixels: behind };
  placed.millis = performance.now() - started;
  stage.box.dataset.solve = placed.millis.toFixed(1);
}

/** The tool that moves the piece. */
export class Placing {
  constructor(redraw) {
    this.redraw = redraw;
  }

  get geometry() {
    const source = others("blend").source;
    const ratio = stage.size.width / session.photo.width;
    const corners = frame(session.photo, source, ratio).map((corner) => stage.view.toScreen(corner.x, corner.y));
    return { ratio, corners, middle: stage.view.toScreen(placed.x * ratio, placed.y * ratio) };
  }

  down(point) {
    const { corners } = this.geometry;
    const near = (corner) => Math.hypot(point.x - corner.x, point.y - corner.y) < 2 * HANDLE;
    this.doing = near(knob(corners)) ? "turn" : near(corners[2]) ? "scale" : "move";
    this.last = point;
  }

  move(point, dragging) {
    if (!dragging || !this.last) return;
    const { ratio, middle } = this.geometry;
    const [now, before] = [point, this.last].map((one) => ({ x: one.x - middle.x, y: one.y - middle.y }));
    if (this.doing === "turn") placed.degrees += ((Math.atan2(now.y, now.x) - Math.atan2(before.y, before.x)) * 180) / Math.PI;
    else if (this.doing === "scale") {
      placed.scale = limited((placed.scale * Math.hypot(now.x, now.y)) / Math.max(Math.hypot(before.x, before.y), 1));
    } else {
      placed.x += (point.x - this.last.x) / stage.view.scale / ratio;
      placed.y += (point.y - this.last.y) / stage.view.scale / ratio;
    }
    this.last = point;
    this.redraw();
  }

  up() {
    this.last = null;
    placed.degrees = ((placed.degrees + 540) % 360) - 180;
    changed();
  }

  wheel(notches, event) {
    if (event.shiftKey) placed.degrees += notches;
    else placed.scale = limited(placed.scale * 1.05 ** notches);
    this.redraw();
    return true;
  }

  /** Move by keys: arrows by a pixel of the destination, with Shift by ten. */
  key(event) {
    const step = event.shiftKey ? 10 : 1;
    const arrows = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (arrows[event.key]) {
      placed.x += arrows[event.key][0];
      placed.y += arrows[event.key][1];
    } else if (event.key === "," || event.key === ".") placed.degrees += (event.key === "." ? 1 : -1) * step;
    else if (event.key === "<" || event.key === ">") placed.scale = limited(placed.scale * (event.key === ">" ? 1.02 : 1 / 1.02));
    else return false;
    this.redraw();
    emit("said", `piece at ${Math.round(placed.x)}, ${Math.round(placed.y)}, scale ${placed.scale.toFixed(2)}, ${Math.round(placed.degrees)} degrees`);
    return true;
  }
}

const limited = (scale) => Math.min(Math.max(scale, 0.01), 64);

/** Put the piece into the form that the server takes: a turned piece is cut out there, at full size. */
export async function pieceInputs(request) {
  const source = others("blend").source;
  if (!source) throw new Error("open the picture that holds the piece: source");
  const overlay = await maskOf(source);
  const degrees = Math.abs(placed.degrees) < 0.05 ? 0 : placed.degrees;
  const inputs = { ...request.inputs, source: source.id };
  let { width, height } = source;
  if (!overlay.mask.empty) inputs.mask = await sendMask(overlay, source);
  else if (!source.alpha) throw new Error("cut the piece out first: press Cut out and paint it");
  if (degrees) {
    const piece = await post(`/api/images/${source.id}/cutout`, { mask: inputs.mask ?? null, degrees });
    delete inputs.mask;
    inputs.source = piece.id;
    ({ width, height } = piece);
  }
  const at = [Math.round(placed.x - (width * placed.scale) / 2), Math.round(placed.y - (height * placed.scale) / 2)];
  return { inputs, params: { ...request.params, at, scale: Number(placed.scale.toFixed(4)) } };
}
