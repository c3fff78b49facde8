import { describe, expect, it } from "vitest";
// @ts-expect-error: the page itself needs no types of Node
import { gzipSync } from "node:zlib";
import { pointsOf } from "../src/chart";
import { decode, type Problems } from "../src/data";
import { agreement, common, select, verdictOf, type Query } from "../src/problems/model";
import { format, parse } from "../src/route";
import { pieces, summary, visible } from "../src/text";
import { windowOf } from "../src/virtual";

const problems: Problems = {
  index: [0, 1, 2, 3],
  question: ["Walk home", "add", "add more", "none"],
  gold: ["1", "2", null, "4"],
  modes: {
    value: { answer: ["1", "3", "x", null], correct: [true, false, null, null], value: [0.9, 0.2, null, null], tokens: [5, 7, 6, 1], samples: [1, 1, 1, 0] },
    "best-of-n": { answer: ["0", "2", "x", "4"], correct: [false, true, null, true], value: [0.1, 0.8, 0.5, 0.4], tokens: [5, 7, 6, 1], samples: [1, 1, 1, 1] },
  },
};
const query = (patch: Partial<Query>): Query => ({ text: "", wanted: {}, tree: false, sort: "index", down: false, ...patch });
const ask = (patch: Partial<Query>) => select(problems, query(patch), (index) => index === 2);

describe("problems", () => {
  it("tells right, wrong, none and ungradable apart", () => {
    expect([0, 1, 2, 3].map((row) => verdictOf(problems.modes["value"], row))).toEqual(["right", "wrong", "ungraded", "none"]);
  });
  it("filters, searches and sorts", () => {
    expect(ask({})).toEqual([0, 1, 2, 3]);
    expect(ask({ wanted: { value: "wrong", "best-of-n": "right" } })).toEqual([1]);
    expect(ask({ text: "ADD" })).toEqual([1, 2]);
    expect(ask({ tree: true })).toEqual([2]);
    expect(ask({ sort: "value:value", down: true })).toEqual([0, 1, 2, 3]);
    expect(ask({ sort: "value:value" })).toEqual([1, 0, 2, 3]); // unknown last both ways
    expect(ask({ sort: "gold", down: true })).toEqual([3, 1, 0, 2]);
  });
  it("pairs two runs by question", () => {
    const other: Problems = { ...problems, question: ["add", "Walk home", "new", "none"] };
    const pairs = common(problems, other);
    expect(pairs).toEqual([[0, 1], [1, 0], [3, 3]]);
    expect(agreement(problems.modes["value"]!, problems.modes["best-of-n"]!, [[0, 0], [1, 1], [3, 3]])).toEqual([0, 1, 2, 0]);
  });
});

describe("text", () => {
  it("splits a step", () => {
    expect(pieces("STEP-2:\n<think>\na\n</think>\n<tool_call>{}</tool_call>\n<tool_response>\n7\n</tool_response>").map((piece) => [piece.kind, piece.text])).toEqual([
      ["header", "STEP-2:"], ["thought", "a"], ["call", "{}"], ["response", "7"],
    ]);
    expect(pieces("plain").map((piece) => piece.kind)).toEqual(["text"]);
    expect(pieces("<think>never closed").map((piece) => piece.kind)).toEqual(["thought"]);
    expect(summary("STEP-1:\n<think>\nlong\nthought\n</think><answer>42</answer>")).toBe("42");
    expect(summary("x".repeat(500)).length).toBe(160);
  });
  it("shows what would not be seen", () => {
    const shown = (text: string) => visible(text).map((part) => (typeof part === "string" ? part : `[${(part.props as { children: unknown[] }).children.join("")}]`)).join("");
    expect(shown("a\u202eb")).toBe("a[U+202E]b");
    expect(shown("\u001b[31m\u200b\ud800")).toBe("[U+001B][31m[U+200B][U+D800]");
    expect(shown("tab\tline\n😀")).toBe("tab\tline\n😀");
  });
});

describe("the rest", () => {
  it("keeps an address", () => {
    expect(parse(format({ tab: "tree", n: "17" }))).toEqual({ tab: "tree", n: "17" });
    expect(parse("#n=17")).toEqual({ n: "17" });
  });
  it("decodes blobs", async () => {
    const text = gzipSync(JSON.stringify({ a: "</script> é" })).toString("base64");
    expect(await decode(`\n${text}\n`)).toEqual({ a: "</script> é" });
  });
  it("shows the rows of a window", () => {
    expect(windowOf(10_000, 30, 3000, 600)).toEqual({ first: 92, last: 128 });
    expect(windowOf(3, 30, 0, 600)).toEqual({ first: 0, last: 3 });
    expect(windowOf(0, 30, 500, 600)).toEqual({ first: 0, last: 0 });
  });
  it("leaves out points that are unknown", () => {
    expect(pointsOf({ name: "a", x: [0, 1, 2], y: [1, null, 3] }, true).map((point) => point.x)).toEqual([2]);
  });
});
