import { describe, expect, it } from "vitest";
import type { TreeData } from "../src/data";
import { arc, mark, positions, radiusOf, sizeOf } from "../src/tree/draw";
import { outline, passes, TreeModel } from "../src/tree/model";

// root 0; simulation 1: 1, 2; simulation 2 expands 2: 3 (right), 4 (wrong); simulation 3 revisits 3; 1 pruned at 2
export const data: TreeData = {
  question: "q",
  parent: [-1, 0, 0, 2, 2],
  depth: [0, 1, 1, 2, 2],
  status: [0, 0, 0, 1, 1],
  simulation: [0, 1, 1, 2, 2],
  pruned_at: [-1, 2, -1, -1, -1],
  visits: [3, 0, 3, 2, 1],
  value: [0.1, 0.2, 0.5, 0.9, 0.8],
  prior: [1, 0.4, 0.6, 0.5, 0.5],
  backed_up: [null, null, null, 1, 0],
  revisits: [[3, 3]],
  tokens: [1, 1, 1, 1, 1],
  text: ["q", "STEP-1:\n<think>\nfirst\n</think>", "second", "<answer>42</answer>", "<answer>7</answer>"],
  answer: [null, null, null, "42", "7"],
  potential: [0, 0.3, 0.5, 1, 0.4],
  potential_label: "V",
  correct: [false, false, false, true, false],
  chosen: 3,
  merged: [-1, 2, -1, -1, -1],
  group: [-1, -1, -1, 0, 1],
  groups: ["42", "7"],
  theta: [0, 0, 3, 2, 4],
  distance: [0, 1, 1, 2, 2],
  knots: [[0, 0], [1, 0.5], [2, 0.9]],
  rings: [1],
};

describe("the tree at a moment", () => {
  const model = new TreeModel(data);
  it("grows with the simulations", () => {
    expect([0, 1, 2, 3].map((simulation) => model.at(simulation).size)).toEqual([1, 3, 5, 5]);
    expect(model.last).toBe(3);
  });
  it("counts visits and means as the search did", () => {
    expect([...model.at(2).visits]).toEqual([2, 0, 2, 1, 1]);
    expect([...model.at(3).visits]).toEqual(data.visits);
    expect(model.at(3).mean[2]).toBeCloseTo(2 / 3);
    expect(model.at(1).mean[0]).toBeNaN();
  });
  it("prunes when the search did", () => {
    expect(model.at(1).pruned[1]).toBe(0);
    expect(model.at(2).pruned[1]).toBe(1);
    expect(model.kind(1, model.at(1))).toBe("open");
    expect(model.kind(1, model.at(2))).toBe("pruned");
    expect([3, 4].map((node) => model.kind(node, model.at(3)))).toEqual(["correct", "wrong"]);
  });
  it("groups leaves by answer", () => {
    expect(model.groups(model.at(3)).map((group) => [group.answer, group.leaves, group.correct, group.chosen])).toEqual([
      ["42", [3], true, true],
      ["7", [4], false, false],
    ]);
  });
  it("knows where a reader goes first", () => {
    expect(model.landmarks().map((entry) => entry.node)).toEqual([0, 3, 4, 1, 4]);
  });
  it("finds text, answers and numbers", () => {
    const moment = model.at(3);
    expect(model.search("FIRST", moment)).toEqual([1]);
    expect(model.search("42", moment)).toEqual([3]);
    expect(model.search("#4", moment)).toEqual([4]);
    expect(model.search(" ", moment)).toEqual([]);
  });
});

describe("the outline", () => {
  const model = new TreeModel(data);
  const moment = model.at(3);
  it("lists nodes depth first and folds", () => {
    expect(outline(model, moment, "all", new Set(), null).map((row) => row.node)).toEqual([0, 1, 2, 3, 4]);
    expect(outline(model, moment, "all", new Set([2]), null).map((row) => row.node)).toEqual([0, 1, 2]);
  });
  it("keeps what leads to a match", () => {
    const rows = outline(model, moment, "wrong", new Set(), null);
    expect(rows.map((row) => [row.node, row.match])).toEqual([[0, false], [2, false], [4, true]]);
    expect(outline(model, moment, "all", new Set(), new Set([3])).map((row) => row.node)).toEqual([0, 2, 3]);
  });
  it("filters by kind", () => {
    const kept = (filter: Parameters<typeof passes>[3]) => [0, 1, 2, 3, 4].filter((node) => passes(model, moment, node, filter));
    expect(kept("pruned")).toEqual([1]);
    expect(kept("right")).toEqual([3]);
    expect(kept("answers")).toEqual([3, 4]);
    expect(kept("gap")).toEqual([4]);
    expect(kept("kept")).toEqual([0, 2, 3, 4]);
  });
});

describe("the disk", () => {
  it("places nodes at the radius of their distance", () => {
    expect(radiusOf(data.knots, 1.5)).toBeCloseTo(0.7);
    expect(radiusOf(data.knots, 9)).toBeCloseTo(0.9);
    const xy = positions(new TreeModel(data));
    expect(Math.hypot(xy[6] as number, xy[7] as number)).toBeCloseTo(0.9);
    expect([xy[0], xy[1]]).toEqual([0, -0]);
  });
  it("draws geodesics on circles orthogonal to the rim", () => {
    // the geodesic from (0.5, 0) to (0, 0.5): center (1.25, 1.25), radius² = |m|² − 1
    expect(arc(0.5, 0, 0, 0.5).radius).toBeCloseTo(Math.sqrt(2 * 1.25 ** 2 - 1));
    expect(arc(0, 0, 0.3, 0.4).radius).toBe(0);
    expect(arc(0.5, 0, 0, 0.5).sweep).not.toBe(arc(0, 0.5, 0.5, 0).sweep);
  });
  it("draws marks that close", () => {
    for (const kind of ["root", "open", "pruned", "correct", "wrong", "answered", "ended"] as const)
      expect(mark(kind, 1, 2, 3)).toMatch(/^M.*Z$/);
    const moment = new TreeModel(data).at(3);
    expect(sizeOf(moment, 2, "visits")).toBeGreaterThan(sizeOf(moment, 1, "visits"));
  });
});
