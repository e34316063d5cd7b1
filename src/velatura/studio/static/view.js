// Where a picture lies on the screen: scale and offset. Plain mathematics, no page.

const LEAST = 0.02;
const MOST = 64;

export class View {
  constructor() {
    this.scale = 1;
    this.x = 0;
    this.y = 0;
  }

  /** Show a whole picture in a box, in the middle, with a margin. */
  fit(width, height, boxWidth, boxHeight, margin = 16) {
    const room = (box) => Math.max(box - 2 * margin, 16);
    this.scale = Math.min(room(boxWidth) / width, room(boxHeight) / height);
    this.x = (boxWidth - width * this.scale) / 2;
    this.y = (boxHeight - height * this.scale) / 2;
  }

  /** Zoom by a factor; the point of the screen keeps what it shows. */
  zoom(factor, x, y) {
    const scale = Math.min(Math.max(this.scale * factor, LEAST), MOST);
    const change = scale / this.scale;
    this.x = x - (x - this.x) * change;
    this.y = y - (y - this.y) * change;
    this.scale = scale;
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
  }

  /** Turn a point of the screen into one of the picture. */
  toImage(x, y) {
    return { x: (x - this.x) / this.scale, y: (y - this.y) / this.scale };
  }

  /** Turn a point of the picture into one of the screen. */
  toScreen(x, y) {
    return { x: x * this.scale + this.x, y: y * this.scale + this.y };
  }
}
