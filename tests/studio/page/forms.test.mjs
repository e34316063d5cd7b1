import assert from "node:assert/strict";
import test from "node:test";
import { kindOf, labelOf, params, valueOf } from "../../../src/velatura/studio/static/forms.js";

const scale = { type: "number", default: 4, minimum: 1, maximum: 8 };
const seed = { type: "integer", default: 0, minimum: 0 };
const fading = { anyOf: [{ type: "boolean" }, { type: "null" }], default: null };
const norm = { anyOf: [{ enum: ["l1", "l2"], type: "string" }, { type: "null" }], default: null };
const size = { anyOf: [{ type: "array" }, { type: "null" }], default: null };

test("kinds are told from the schema", () => {
  assert.equal(kindOf(scale).type, "number");
  assert.deepEqual([kindOf(norm).type, kindOf(norm).optional], ["choice", true]);
  assert.deepEqual([kindOf(fading).type, kindOf(fading).optional], ["boolean", true]);
  assert.equal(kindOf({ anyOf: [{ type: "number" }, { type: "string" }] }).type, "text");
});

test("what is typed is sent in its own type, and the usual is left out", () => {
  assert.equal(valueOf(scale, "2.5"), 2.5);
  assert.equal(valueOf(scale, "4"), undefined);
  assert.equal(valueOf(seed, ""), undefined);
  assert.equal(valueOf(fading, "false"), false);
  assert.equal(valueOf(fading, ""), undefined);
  assert.equal(valueOf(size, "1920x"), "1920x");
});

test("options of an application become what is sent", () => {
  const one = { params: { scale, seed, size } };
  assert.deepEqual(params(one, { scale: "2", seed: 0, size: "10x", ":model": "srresnet", other: 3 }), { scale: 2, size: "10x" });
});

test("labels are words", () => assert.equal(labelOf("keep_color"), "Keep color"));
