import assert from "node:assert/strict";
import test from "node:test";
import { Mask } from "../../../src/velatura/studio/static/mask.js";

const stroke = (mask, from, to, radius = 4, soft = 0, paints = true) => {
  mask.begin();
  mask.line(from, to, radius, soft, paints);
  mask.end();
};
const at = (mask, x, y) => mask.data[y * mask.width + x];
const sum = (mask) => mask.data.reduce((total, value) => total + value, 0);

test("a brush covers a disc, and fades where it is soft", () => {
  const mask = new Mask(41, 41);
  stroke(mask, { x: 20.5, y: 20.5 }, { x: 20.5, y: 20.5 }, 10, 0.5);
  assert.equal(at(mask, 20, 20), 255);
  assert.equal(at(mask, 25, 20), 255);
  assert.ok(at(mask, 28, 20) > 0 && at(mask, 28, 20) < 255);
  assert.equal(at(mask, 31, 20), 0);
  const hard = new Mask(41, 41);
  stroke(hard, { x: 20.5, y: 20.5 }, { x: 20.5, y: 20.5 }, 10, 0);
  assert.ok(Math.abs(sum(hard) / 255 - Math.PI * 100) < 20);
});

test("passing twice changes nothing, so that strokes have no knots", () => {
  const mask = new Mask(40, 20);
  stroke(mask, { x: 5, y: 10 }, { x: 35, y: 10 }, 4, 1);
  const once = mask.data.slice();
  mask.begin();
  for (let x = 5; x < 35; x += 5) mask.line({ x, y: 10 }, { x: x + 5, y: 10 }, 4, 1, true);
  mask.end();
  const most = Math.max(...mask.data.map((value, i) => Math.abs(value - once[i])));
  assert.ok(most <= 1);
});

test("the eraser takes away what the brush put there", () => {
  const mask = new Mask(30, 30);
  stroke(mask, { x: 15, y: 15 }, { x: 15, y: 15 }, 5);
  stroke(mask, { x: 15, y: 15 }, { x: 15, y: 15 }, 7, 0, false);
  assert.ok(mask.empty);
});

test("strokes beyond the edge are cut off", () => {
  const mask = new Mask(10, 10);
  stroke(mask, { x: -50, y: 5 }, { x: 60, y: 5 }, 2);
  assert.equal(at(mask, 0, 5), 255);
  assert.equal(at(mask, 9, 5), 255);
  stroke(mask, { x: -50, y: -50 }, { x: -40, y: -50 }, 2);
});

test("a box and a lasso fill what they enclose", () => {
  const mask = new Mask(20, 20);
  mask.begin();
  mask.box({ x: 12, y: 9 }, { x: 4, y: 3 }, true);
  mask.end();
  assert.equal(sum(mask), 255 * 8 * 6);
  assert.equal(at(mask, 4, 3), 255);
  assert.equal(at(mask, 12, 9), 0);
  mask.begin();
  mask.polygon([{ x: 4, y: 3 }, { x: 12, y: 3 }, { x: 12, y: 9 }, { x: 4, y: 9 }], false);
  mask.end();
  assert.ok(mask.empty);
});

test("ten strokes are undone one by one, and all come back", () => {
  const mask = new Mask(100, 100);
  const states = [mask.data.slice()];
  for (let i = 0; i < 10; i++) {
    stroke(mask, { x: 9 * i, y: 10 }, { x: 90 - 9 * i, y: 90 }, 3 + i, 0.5, i % 3 !== 2);
    states.push(mask.data.slice());
  }
  for (let i = 9; i >= 0; i--) {
    assert.ok(mask.undo());
    assert.deepEqual(mask.data, states[i]);
  }
  assert.equal(mask.undo(), null);
  assert.deepEqual(mask.data, states[0]);
  for (let i = 1; i <= 10; i++) {
    assert.ok(mask.redo());
    assert.deepEqual(mask.data, states[i]);
  }
  assert.equal(mask.redo(), null);
});

test("a stroke that was never ended is kept, and can be undone", () => {
  const mask = new Mask(20, 20);
  mask.begin();
  mask.line({ x: 5, y: 5 }, { x: 15, y: 5 }, 2, 0, true);
  const painted = mask.data.slice();
  stroke(mask, { x: 5, y: 15 }, { x: 15, y: 15 }, 2);
  mask.undo();
  assert.deepEqual(mask.data, painted);
  mask.undo();
  assert.ok(mask.empty);
});

test("inverting twice, clearing and loading can be undone", () => {
  const mask = new Mask(8, 8);
  stroke(mask, { x: 4, y: 4 }, { x: 4, y: 4 }, 2, 1);
  const painted = mask.data.slice();
  for (const change of [(one) => one.invert(), (one) => one.invert(), (one) => one.clear(), (one) => one.load(new Uint8Array(64).fill(9))]) {
    mask.begin();
    change(mask);
    mask.end();
  }
  assert.equal(at(mask, 0, 0), 9);
  mask.undo();
  mask.undo();
  assert.deepEqual(mask.data, painted);
});
