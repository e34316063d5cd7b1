// The canvas in the middle: what is painted on it, zoom and pan, and the pointer, which tools get.

import { $ } from "./dom.js";
import { emit } from "./bus.js";
import { View } from "./view.js";

const STEP = 1.25; // of zooming by key
const MARGIN = 16;

class Stage {
  constructor() {
    this.box = $("#stage");
    this.canvas = $("#canvas");
    this.view = new View();
    this.size = { width: 0, height: 0 };
    this.columns = 1;
    this.layers = []; // functions (context, view), the lowest first
    this.tool = null; // down, move, up, drop, leave, wheel, paint: what it has
    this.spaceHeld = false; // then the pointer moves the picture, whatever the tool
    this.pointers = new Map();
    this.waiting = false;
    this.fitted = true;
    new ResizeObserver(() => this.#resized()).observe(this.box);
    this.#listen();
  }

  /** Say what is shown: its size in pixels of the page, the layers, and how many pictures stand side by side. */
  show(width, height, layers, columns = 1) {
    const same = this.size.width === width && this.size.height === height;
    const reflowed = this.fitted && this.columns !== columns;
    this.size = { width, height };
    this.layers = layers;
    this.columns = columns;
    if (!same || reflowed) this.fit();
    this.draw();
  }

  fit() {
    this.fitted = true;
    const { clientWidth, clientHeight } = this.box;
    const share = clientWidth / this.columns;
    if (this.size.width) {
      this.view.fit(this.size.width, this.size.height, share, clientHeight, MARGIN);
      this.view.pan((clientWidth - share) / 2, 0);
    }
    this.draw();
    emit("zoomed");
  }

  zoom(factor, x = this.box.clientWidth / 2, y = this.box.clientHeight / 2) {
    this.fitted = false;
    this.view.zoom(factor, x, y);
    this.draw();
    emit("zoomed");
  }

  pan(dx, dy) {
    this.fitted = false;
    this.view.pan(dx, dy);
    this.draw();
  }

  /** Draw at the next frame, once. */
  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.#paint();
    });
  }

  #paint() {
    const ratio = devicePixelRatio;
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.box.clientWidth, this.box.clientHeight);
    context.imageSmoothingEnabled = this.view.scale < 4;
    context.imageSmoothingQuality = "high";
    if (this.size.width) this.#checkers(context);
    for (const layer of this.layers) layer(context, this.view);
    this.tool?.paint?.(context, this.view);
  }

  /** Squares below the picture show where it is transparent. */
  #checkers(context) {
    const { x, y, scale } = this.view;
    context.fillStyle = this.squares ??= squares(context);
    context.fillRect(x, y, this.size.width * scale, this.size.height * scale);
  }

  #resized() {
    this.canvas.width = Math.round(this.box.clientWidth * devicePixelRatio);
    this.canvas.height = Math.round(this.box.clientHeight * devicePixelRatio);
    if (this.fitted) this.fit();
    this.#paint();
  }

  // --- pointers ------------------------------------------------------------------------------------------------------

  #listen() {
    const { box } = this;
    box.addEventListener("pointerdown", (event) => this.#down(event));
    box.addEventListener("pointermove", (event) => this.#move(event));
    box.addEventListener("pointerup", (event) => this.#up(event));
    box.addEventListener("pointercancel", (event) => this.#up(event));
    box.addEventListener("pointerleave", () => this.tool?.leave?.());
    box.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    box.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  at(event) {
    const frame = this.box.getBoundingClientRect();
    return { x: event.clientX - frame.left, y: event.clientY - frame.top };
  }

  /** Side by side, either half shows the middle of the stage. */
  #within({ x, y }) {
    const half = this.box.clientWidth / 2;
    return { x: this.columns === 1 ? x : x + (x < half ? half : -half) / 2, y };
  }

  #down(event) {
    if (event.target.closest("button")) return;
    this.box.focus({ preventScroll: true });
    this.box.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.at(event));
    if (this.pointers.size > 1) {
      // Two fingers move the picture, whatever the tool; what the first began is dropped.
      this.tool?.drop?.();
      this.dragging = false;
      return;
    }
    this.panning = event.button === 1 || this.spaceHeld || !this.tool?.down;
    if (!this.panning && event.button === 0) {
      this.dragging = true;
      this.tool.down(this.at(event), event);
      this.draw();
    }
  }

  #move(event) {
    const now = this.at(event);
    const before = this.pointers.get(event.pointerId);
    if (before) this.pointers.set(event.pointerId, now);
    if (this.pointers.size === 2 && before) this.#pinch(event.pointerId, before, now);
    else if (before && this.panning) this.pan(now.x - before.x, now.y - before.y);
    else if (this.dragging || !before) {
      // All points that the pointer passed, not only the last of the frame.
      const passed = this.dragging && event.getCoalescedEvents ? event.getCoalescedEvents() : [event];
      for (const each of passed.length ? passed : [event]) this.tool?.move?.(this.at(each), this.dragging, event);
      this.draw();
    }
  }

  #up(event) {
    this.pointers.delete(event.pointerId);
    if (this.dragging) {
      this.dragging = false;
      this.tool?.up?.(this.at(event), event);
      this.draw();
    }
    this.panning = false;
  }

  #pinch(id, before, now) {
    const other = [...this.pointers].find(([key]) => key !== id)[1];
    const distance = (point) => Math.max(Math.hypot(point.x - other.x, point.y - other.y), 1);
    this.pan((now.x - before.x) / 2, (now.y - before.y) / 2);
    const { x, y } = this.#within({ x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
    this.zoom(distance(now) / distance(before), x, y);
  }

  #wheel(event) {
    event.preventDefault();
    if (!event.ctrlKey && !event.metaKey && this.tool?.wheel?.(-Math.sign(event.deltaY), event)) {
      this.draw();
      return;
    }
    const { x, y } = this.#within(this.at(event));
    this.zoom(Math.exp(-event.deltaY / (event.ctrlKey ? 100 : 400)), x, y);
  }
}

function squares(context) {
  const tile = new OffscreenCanvas(20, 20);
  const drawing = tile.getContext("2d");
  drawing.fillStyle = "#fff";
  drawing.fillRect(0, 0, 20, 20);
  drawing.fillStyle = "#ddd";
  drawing.fillRect(0, 0, 10, 10);
  drawing.fillRect(10, 10, 10, 10);
  return context.createPattern(tile, "repeat");
}

export const stage = new Stage();
export const zoomIn = () => stage.zoom(STEP);
export const zoomOut = () => stage.zoom(1 / STEP);

/** Give a layer that shows a bitmap over the whole picture. */
export const picture = (image) => (context, view) => {
  const { width, height } = stage.size;
  context.drawImage(image, view.x, view.y, width * view.scale, height * view.scale);
};
