// Before and after: result, slider, side by side, difference.

import { pixelsOf } from "./bitmaps.js";
import { stage, picture } from "./stage.js";

const GAIN = 4; // a difference is shown so many times as strong
const GRIP = 14;

/** Give the layers of a comparison of two bitmaps. */
export function layersOf(mode, before, after, slider) {
  switch (mode) {
    case "before":
      return [picture(before)];
    case "difference":
      return [picture(difference(before, after))];
    case "slider":
      return [picture(after), (context, view) => slide(context, view, before, slider.share)];
    case "side":
      return [(context, view) => sideBySide(context, view, before, after)];
    default:
      return [picture(after)];
  }
}

function slide(context, view, before, share) {
  const { width, height } = stage.size;
  const edge = view.x + width * view.scale * share;
  context.save();
  context.beginPath();
  context.rect(0, 0, Math.max(edge, 0), stage.box.clientHeight);
  context.clip();
  // What is transparent in the one must not show the other.
  context.clearRect(0, 0, stage.box.clientWidth, stage.box.clientHeight);
  picture(before)(context, view);
  context.restore();
  const middle = view.y + (height * view.scale) / 2;
  for (const [style, line] of [["#0008", 4], ["#fff", 2]]) {
    context.beginPath();
    context.moveTo(edge, view.y);
    context.lineTo(edge, view.y + height * view.scale);
    context.strokeStyle = style;
    context.lineWidth = line;
    context.stroke();
  }
  context.beginPath();
  context.arc(edge, middle, GRIP, 0, 2 * Math.PI);
  context.fillStyle = "#fff";
  context.fill();
  context.fillStyle = "#222";
  context.font = "14px system-ui";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText("↔", edge, middle);
  label(context, "before", edge - 10, view.y + 10, "right");
  label(context, "after", edge + 10, view.y + 10, "left");
}

/** Both halves of the stage show the same part, the one before, the other after. */
function sideBySide(context, view, before, after) {
  const { clientWidth, clientHeight } = stage.box;
  const half = clientWidth / 2;
  [before, after].forEach((image, i) => {
    context.save();
    context.beginPath();
    context.rect(i * half, 0, half, clientHeight);
    context.clip();
    // What lies below the middle of the stage is no part of either half.
    context.clearRect(i * half, 0, half, clientHeight);
    context.translate(i * half - half / 2, 0);
    picture(image)(context, view);
    context.restore();
    label(context, i ? "after" : "before", i * half + 10, 10, "left");
  });
  context.fillStyle = "#fff8";
  context.fillRect(half - 1, 0, 2, clientHeight);
}

function label(context, text, x, y, align) {
  context.font = "12px system-ui";
  context.textAlign = align;
  context.textBaseline = "top";
  const width = context.measureText(text).width;
  context.fillStyle = "#000a";
  context.fillRect(align === "right" ? x - width - 5 : x - 5, y - 3, width + 10, 19);
  context.fillStyle = "#fff";
  context.fillText(text, x, y);
}

const differences = new WeakMap();

function difference(before, after) {
  const found = differences.get(after);
  if (found?.before === before) return found.canvas;
  const { width, height } = after;
  const [one, other] = [pixelsOf(before, width, height), pixelsOf(after, width, height)];
  for (let i = 0; i < one.data.length; i++) {
    one.data[i] = i % 4 === 3 ? 255 : GAIN * Math.abs(one.data[i] - other.data[i]);
  }
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(one, 0, 0);
  differences.set(after, { before, canvas });
  return canvas;
}

/** The tool that drags the slider. */
export class Slider {
  constructor() {
    this.share = 0.5;
  }

  down(point) {
    this.#set(point);
  }

  move(point, dragging) {
    if (dragging) this.#set(point);
  }

  /** Move by keys. */
  nudge(by) {
    this.share = Math.min(Math.max(this.share + by, 0), 1);
    stage.draw();
  }

  #set(point) {
    const { x } = stage.view.toImage(point.x, point.y);
    this.share = Math.min(Math.max(x / stage.size.width, 0), 1);
    stage.draw();
  }
}
