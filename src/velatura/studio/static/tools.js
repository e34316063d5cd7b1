// Painting tools: each turns a pointer, or the pen that the keys move, into changes of a mask.

import { emit } from "./bus.js";
import { stage } from "./stage.js";

export const brush = { size: 40, soft: 0.3 }; // pixels of the screen, share of the radius

const radius = () => brush.size / 2 / stage.view.scale;

/** Change the size of the brush by some notches. */
export function resizeBrush(notches) {
  brush.size = Math.min(Math.max(Math.round(brush.size * 1.15 ** notches + Math.sign(notches)), 2), 400);
  emit("brush");
}

class Tool {
  /**
   * @param {() => import("./overlay.js").Overlay | null} target - gives the mask that is painted on, with its veil
   */
  constructor(target) {
    this.target = target;
    this.pointer = null;
  }

  get mask() {
    return this.target()?.mask;
  }

  changed(area) {
    if (area) this.target().draw(area);
    stage.draw();
  }

  move(point) {
    this.pointer = point;
  }

  leave() {
    this.pointer = null;
    stage.draw();
  }

  finish() {
    this.mask?.end();
    emit("mask");
  }
}

/** Brush and eraser. */
export class Brush extends Tool {
  constructor(target, paints) {
    super(target);
    this.paints = paints;
  }

  down(point) {
    if (!this.mask) return;
    this.mask.begin();
    this.last = stage.view.toImage(point.x, point.y);
    this.#mark(this.last);
  }

  move(point, dragging) {
    super.move(point);
    if (dragging && this.last) this.#mark(stage.view.toImage(point.x, point.y));
  }

  up() {
    this.last = null;
    this.finish();
  }

  /** Take back what a second finger interrupted. */
  drop() {
    if (!this.last) return;
    this.up();
    this.changed(this.mask.undo());
  }

  wheel(notches) {
    resizeBrush(notches);
    return true;
  }

  #mark(point) {
    this.changed(this.mask.line(this.last, point, radius(), brush.soft, this.paints));
    this.last = point;
  }

  paint(context) {
    if (!this.pointer) return;
    for (const [style, width] of [["#000", 3], ["#fff", 1]]) {
      context.beginPath();
      context.arc(this.pointer.x, this.pointer.y, Math.max(brush.size / 2, 1), 0, 2 * Math.PI);
      context.strokeStyle = style;
      context.lineWidth = width;
      context.stroke();
    }
  }
}

/** Lasso and box: a shape is drawn, then filled; with Alt it is taken away. */
export class Shape extends Tool {
  constructor(target, kind) {
    super(target);
    this.kind = kind;
    this.points = [];
  }

  down(point) {
    this.points = [stage.view.toImage(point.x, point.y)];
  }

  move(point, dragging) {
    super.move(point);
    if (!dragging || !this.points.length) return;
    const here = stage.view.toImage(point.x, point.y);
    if (this.kind === "box") this.points[1] = here;
    else this.points.push(here);
  }

  up(_, event) {
    const { mask, points } = this;
    this.points = [];
    if (!mask || points.length < 2) return;
    mask.begin();
    const paints = !event?.altKey;
    this.changed(this.kind === "box" ? mask.box(points[0], points.at(-1), paints) : mask.polygon(points, paints));
    this.finish();
  }

  drop() {
    this.points = [];
  }

  paint(context, view) {
    if (this.points.length < 2) return;
    const corners = this.points.map((point) => view.toScreen(point.x, point.y));
    const [first, last] = [corners[0], corners.at(-1)];
    context.beginPath();
    if (this.kind === "box") context.rect(first.x, first.y, last.x - first.x, last.y - first.y);
    else corners.forEach((corner) => context.lineTo(corner.x, corner.y));
    for (const [style, dash] of [["#000", []], ["#fff", [5, 5]]]) {
      context.setLineDash(dash);
      context.strokeStyle = style;
      context.stroke();
    }
    context.setLineDash([]);
  }
}

/** The pen that the keys move: it presses on whichever tool is chosen. */
export class Pen {
  constructor() {
    this.at = null;
    this.lowered = false;
  }

  /** Move by a share of the stage; gives whether there is a tool for it. */
  step(dx, dy, far) {
    if (!stage.tool?.down) return false;
    const { clientWidth, clientHeight } = stage.box;
    this.at ??= { x: clientWidth / 2, y: clientHeight / 2 };
    const reach = far ? 60 : 12;
    const clamp = (value, most) => Math.min(Math.max(value, 0), most);
    this.at = { x: clamp(this.at.x + dx * reach, clientWidth), y: clamp(this.at.y + dy * reach, clientHeight) };
    stage.tool.move?.(this.at, this.lowered);
    stage.draw();
    return true;
  }

  lift() {
    this.lowered = false;
  }

  press() {
    if (!stage.tool?.down) return false;
    this.at ??= { x: stage.box.clientWidth / 2, y: stage.box.clientHeight / 2 };
    if (this.lowered) stage.tool.up?.(this.at);
    else stage.tool.down(this.at);
    this.lowered = !this.lowered;
    stage.tool.move?.(this.at, this.lowered);
    emit("said", this.lowered ? "pen down" : "pen up");
    stage.draw();
    return true;
  }
}
