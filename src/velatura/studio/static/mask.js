// A painted mask: one byte per pixel, 255 = change this. Every change can be undone and done again.

const REMEMBERED = 100; // changes
const REMEMBERED_BYTES = 64 << 20;

export class Mask {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.data = new Uint8Array(width * height);
    this.undone = [];
    this.done = [];
    this.before = null;
  }

  get empty() {
    return !this.data.some((value) => value > 0);
  }

  // --- changes: begin, any number of marks, end ------------------------------------------------------------------

  begin() {
    this.end();
    this.before = this.data.slice();
    this.touched = null;
  }

  /** Remember what changed since `begin`, so that it can be undone. */
  end() {
    const { before, touched } = this;
    this.before = null;
    if (!before || !touched) return;
    this.done.push({ ...touched, before: this.#cut(before, touched), after: this.#cut(this.data, touched) });
    this.undone = [];
    const size = () => this.done.reduce((sum, change) => sum + 2 * change.before.length, 0);
    while (this.done.length > REMEMBERED || (this.done.length > 1 && size() > REMEMBERED_BYTES)) this.done.shift();
  }

  /** Take back the last change; gives the rectangle to draw anew, or null. Nothing in the middle of a change. */
  undo() {
    return this.before ? null : this.#move(this.done, this.undone, "before");
  }

  redo() {
    return this.before ? null : this.#move(this.undone, this.done, "after");
  }

  #move(from, to, side) {
    const change = from.pop();
    if (!change) return null;
    to.push(change);
    const { left, top, width, height } = change;
    for (let row = 0; row < height; row++) {
      this.data.set(change[side].subarray(row * width, (row + 1) * width), (top + row) * this.width + left);
    }
    return { left, top, width, height };
  }

  #cut(data, { left, top, width, height }) {
    const part = new Uint8Array(width * height);
    for (let row = 0; row < height; row++) {
      const start = (top + row) * this.width + left;
      part.set(data.subarray(start, start + width), row * width);
    }
    return part;
  }

  // --- marks: each gives the rectangle that it changed -------------------------------------------------------------

  /** Draw a line with a round brush; `soft` is the share of the radius over which its edge fades. */
  line(from, to, radius, soft, paints) {
    const edge = Math.max(radius * soft, 0.5);
    const inner = radius - edge;
    const dx = to.x - from.x;
    const dy = to.y - from.y;
    const length = dx * dx + dy * dy;
    const area = this.#area(
      Math.min(from.x, to.x) - radius, Math.min(from.y, to.y) - radius,
      Math.max(from.x, to.x) + radius + 1, Math.max(from.y, to.y) + radius + 1,
    );
    for (let y = area.top; y < area.top + area.height; y++) {
      for (let x = area.left; x < area.left + area.width; x++) {
        const px = x + 0.5 - from.x;
        const py = y + 0.5 - from.y;
        const along = length ? Math.min(Math.max((px * dx + py * dy) / length, 0), 1) : 0;
        const distance = Math.hypot(px - along * dx, py - along * dy);
        if (distance < radius) this.#cover(y * this.width + x, distance <= inner ? 1 : (radius - distance) / edge, paints);
      }
    }
    return this.#touch(area);
  }

  /** Fill a polygon, even-odd, whatever its corners cross. */
  polygon(points, paints) {
    if (points.length < 3) return null;
    const xs = points.map((point) => point.x);
    const ys = points.map((point) => point.y);
    const area = this.#area(Math.min(...xs), Math.min(...ys), Math.max(...xs) + 1, Math.max(...ys) + 1);
    for (let y = area.top; y < area.top + area.height; y++) {
      const crossings = [];
      points.forEach((point, i) => {
        const next = points[(i + 1) % points.length];
        const middle = y + 0.5;
        if (point.y <= middle !== next.y <= middle) {
          crossings.push(point.x + ((middle - point.y) / (next.y - point.y)) * (next.x - point.x));
        }
      });
      crossings.sort((a, b) => a - b);
      for (let i = 0; i + 1 < crossings.length; i += 2) {
        const start = Math.max(Math.ceil(crossings[i] - 0.5), 0);
        const stop = Math.min(Math.ceil(crossings[i + 1] - 0.5), this.width);
        for (let x = start; x < stop; x++) this.#cover(y * this.width + x, 1, paints);
      }
    }
    return this.#touch(area);
  }

  box(from, to, paints) {
    const [left, right] = [Math.min(from.x, to.x), Math.max(from.x, to.x)];
    const [top, bottom] = [Math.min(from.y, to.y), Math.max(from.y, to.y)];
    const corners = [{ x: left, y: top }, { x: right, y: top }, { x: right, y: bottom }, { x: left, y: bottom }];
    return this.polygon(corners, paints);
  }

  invert() {
    for (let i = 0; i < this.data.length; i++) this.data[i] = 255 - this.data[i];
    return this.#touch(this.#area(0, 0, this.width, this.height));
  }

  clear() {
    this.data.fill(0);
    return this.#touch(this.#area(0, 0, this.width, this.height));
  }

  /** Take over a mask of the same size, one byte per pixel. */
  load(data) {
    this.data.set(data);
    return this.#touch(this.#area(0, 0, this.width, this.height));
  }

  #cover(index, share, paints) {
    const old = this.data[index];
    this.data[index] = paints ? Math.max(old, Math.round(255 * share)) : Math.min(old, Math.round(255 * (1 - share)));
  }

  #area(left, top, right, bottom) {
    const x = Math.min(Math.max(Math.floor(left), 0), this.width);
    const y = Math.min(Math.max(Math.floor(top), 0), this.height);
    return {
      left: x,
      top: y,
      width: Math.max(Math.min(Math.ceil(right), this.width) - x, 0),
      height: Math.max(Math.min(Math.ceil(bottom), this.height) - y, 0),
    };
  }

  #touch(area) {
    if (!area.width || !area.height) return area;
    const old = this.touched ?? area;
    const left = Math.min(old.left, area.left);
    const top = Math.min(old.top, area.top);
    this.touched = {
      left,
      top,
      width: Math.max(old.left + old.width, area.left + area.width) - left,
      height: Math.max(old.top + old.height, area.top + area.height) - top,
    };
    return area;
  }
}
