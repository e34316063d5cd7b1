import assert from "node:assert/strict";
import test from "node:test";
import { View } from "../../../src/velatura/studio/static/view.js";

test("a picture is fitted into the middle", () => {
  const view = new View();
  view.fit(200, 100, 432, 432, 16);
  assert.deepEqual([view.scale, view.x, view.y], [2, 16, 116]);
});

test("zooming keeps what lies below the pointer", () => {
  const view = new View();
  view.fit(200, 100, 432, 432);
  const before = view.toImage(300, 200);
  view.zoom(3, 300, 200);
  const after = view.toImage(300, 200);
  assert.ok(Math.abs(before.x - after.x) < 1e-9 && Math.abs(before.y - after.y) < 1e-9);
  assert.equal(view.scale, 6);
});

test("zooming ends somewhere", () => {
  const view = new View();
  view.zoom(1e9, 0, 0);
  assert.equal(view.scale, 64);
  view.zoom(1e-12, 0, 0);
  assert.equal(view.scale, 0.02);
});

test("screen and picture are each other's inverse", () => {
  const view = new View();
  view.fit(640, 480, 1000, 700);
  view.pan(13, -7);
  const point = view.toScreen(123, 45);
  const back = view.toImage(point.x, point.y);
  assert.ok(Math.abs(back.x - 123) < 1e-9 && Math.abs(back.y - 45) < 1e-9);
});
