import assert from "node:assert/strict";
import test from "node:test";
import { blended, membrane } from "../../../src/velatura/studio/static/poisson.js";

/** An RGBA picture from a function of x and y that gives [r, g, b, a]. */
function picture(width, height, colour) {
  const data = new Uint8ClampedArray(width * height * 4);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) data.set(colour(x, y), 4 * (y * width + x));
  return data;
}

test("a membrane through a plane is that plane", () => {
  const [width, height] = [33, 29];
  const values = new Float32Array(width * height);
  const known = new Uint8Array(width * height);
  const plane = (x, y) => 2 * x - 3 * y + 5;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (x && y && x < width - 1 && y < height - 1) continue;
      known[y * width + x] = 1;
      values[y * width + x] = plane(x, y);
    }
  }
  membrane(values, known, width, height, 1);
  let worst = 0;
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) worst = Math.max(worst, Math.abs(values[y * width + x] - plane(x, y)));
  assert.ok(worst < 5, `off by ${worst} of 150`);
});

test("a piece that is only brighter vanishes in the destination", () => {
  const ground = (x, y) => [100 + x, 80 + y, 60, 255];
  const destination = picture(60, 50, ground);
  const inside = (x, y) => Math.hypot(x - 30, y - 25) < 18;
  const piece = picture(60, 50, (x, y) => [...ground(x, y).slice(0, 3).map((value) => value + 40), inside(x, y) ? 255 : 0]);
  const made = blended(piece, destination, 60, 50);
  const worst = Math.max(...made.map((value, i) => Math.abs(value - destination[i])));
  assert.ok(worst <= 1, `off by ${worst}`);
});

test("beyond the piece nothing changes, and a soft edge lets the destination through", () => {
  const destination = picture(20, 20, () => [10, 20, 30, 255]);
  const piece = picture(20, 20, (x, y) => [200, 200, (x * 37 + y * 11) % 255, x > 5 && x < 15 && y > 5 && y < 15 ? 255 : 0]);
  const made = blended(piece, destination, 20, 20);
  for (let y = 0; y < 20; y++) for (let x = 0; x < 5; x++) assert.deepEqual([...made.slice(4 * (y * 20 + x), 4 * (y * 20 + x) + 3)], [10, 20, 30]);
});
