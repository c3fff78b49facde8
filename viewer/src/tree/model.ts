// A search tree as it was after any number of simulations, and what can be asked of it. No drawing here.
import type { TreeData } from "../data";
import { summary } from "../text";

export type Kind = "root" | "pruned" | "correct" | "wrong" | "answered" | "ended" | "open";
export const OPEN = 0;
export const ANSWERED = 1;
export const STATUS = ["open", "answered", "depth limit", "repetition", "context limit", "failed"];

export interface Moment {
  simulation: number;
  size: number; // nodes that exist: the first `size`
  visits: Int32Array;
  mean: Float64Array; // Q, NaN before the first visit
  pruned: Uint8Array;
}

export interface Group {
  answer: string;
  leaves: number[];
  correct: boolean | null;
  chosen: boolean;
}

export class TreeModel {
  readonly size: number;
  readonly children: number[][];
  readonly last: number; // number of the last simulation
  private readonly events: [number, number][]; // (simulation, leaf) of every visit, in order

  constructor(readonly data: TreeData) {
    this.size = data.parent.length;
    this.children = Array.from({ length: this.size }, () => []);
    data.parent.forEach((parent, node) => {
      if (parent >= 0) (this.children[parent] as number[]).push(node);
    });
    const made: [number, number][] = [];
    data.backed_up.forEach((value, node) => {
      if (value !== null) made.push([data.simulation[node] as number, node]);
    });
    this.events = [...made, ...data.revisits].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    this.last = Math.max(0, ...tail(data.simulation), ...data.revisits.map((revisit) => revisit[0]));
  }

  /** The tree after its first `simulation` simulations. */
  at(simulation: number): Moment {
    const { data } = this;
    let size = this.size;
    if (simulation < this.last) {
      // nodes are numbered in the order in which simulations made them
      let low = 0;
      let high = this.size;
      while (low < high) {
        const middle = (low + high) >> 1;
        if ((data.simulation[middle] as number) <= simulation) low = middle + 1;
        else high = middle;
      }
      size = low;
    }
    const visits = new Int32Array(size);
    const sum = new Float64Array(size);
    for (const [when, leaf] of this.events) {
      if (when > simulation) break;
      const value = data.backed_up[leaf] ?? 0;
      for (let node = leaf; node >= 0; node = data.parent[node] as number) {
        visits[node]! += 1;
        sum[node]! += value;
      }
    }
    const pruned = new Uint8Array(size);
    for (let node = 0; node < size; node++) {
      const when = data.pruned_at[node] as number;
      pruned[node] = when >= 0 && when <= simulation ? 1 : 0;
    }
    return { simulation, size, visits, mean: sum.map((value, node) => value / (visits[node] as number)), pruned };
  }

  kind(node: number, moment: Moment): Kind {
    const { data } = this;
    if (node === 0) return "root";
    if (moment.pruned[node]) return "pruned";
    if (data.status[node] === ANSWERED) {
      if (data.correct === null) return "answered";
      return data.correct[node] ? "correct" : "wrong";
    }
    return data.status[node] === OPEN ? "open" : "ended";
  }

  path(node: number): number[] {
    const nodes = [];
    for (let at = node; at >= 0; at = this.data.parent[at] as number) nodes.push(at);
    return nodes.reverse();
  }

  /** Leaves by answer, most leaves first: what the search would vote on. */
  groups(moment: Moment): Group[] {
    const found = new Map<number, Group>();
    for (let node = 0; node < moment.size; node++) {
      const group = this.data.group[node] as number;
      if (group < 0 || moment.pruned[node]) continue;
      const entry = found.get(group) ?? {
        answer: this.data.groups[group] as string,
        leaves: [],
        correct: this.data.correct === null ? null : (this.data.correct[node] as boolean),
        chosen: false,
      };
      entry.leaves.push(node);
      entry.chosen ||= node === this.data.chosen;
      found.set(group, entry);
    }
    return [...found.values()].sort((a, b) => b.leaves.length - a.leaves.length || (a.answer < b.answer ? -1 : 1));
  }

  value(node: number): number | null {
    return this.data.value[node] ?? null;
  }

  potential(node: number): number | null {
    return this.data.potential === null ? null : (this.data.potential[node] ?? null);
  }

  difference(node: number): number | null {
    const v = this.potential(node);
    const guess = this.value(node);
    return v === null || guess === null ? null : v - guess;
  }

  /** Nodes to which a reader goes first; null where a tree has none. */
  landmarks(): { name: string; node: number | null }[] {
    const { data } = this;
    const first = data.simulation.findIndex((simulation) => simulation === 1);
    const best = (keep: (node: number) => boolean, score: (node: number) => number | null): number | null => {
      let found: number | null = null;
      let most = -Infinity;
      for (let node = 1; node < this.size; node++) {
        const value = keep(node) ? score(node) : null;
        if (value !== null && value > most) {
          most = value;
          found = node;
        }
      }
      return found;
    };
    const pruned = (node: number) => (data.pruned_at[node] as number) >= 0;
    return [
      { name: "First expansion", node: first > 0 ? (data.parent[first] as number) : null },
      { name: "Answer’s path", node: data.chosen },
      {
        name: "Best wrong leaf",
        node: best(
          (node) => data.status[node] === ANSWERED && !pruned(node) && data.correct !== null && !data.correct[node],
          (node) => this.value(node) ?? 0,
        ),
      },
      { name: "First pruned", node: best(pruned, (node) => -(data.pruned_at[node] as number)) },
      {
        name: "Largest |V − v̂|",
        node: best(
          () => true,
          (node) => {
            const gap = this.difference(node);
            return gap === null ? null : Math.abs(gap);
          },
        ),
      },
    ];
  }

  /** Children of the first expansion: what the search did first. */
  firstChildren(): number[] {
    return this.data.simulation.flatMap((simulation, node) => (simulation === 1 ? [node] : []));
  }

  /** Nodes whose text, answer or number holds `query`, in order; "" finds nothing. */
  search(query: string, moment: Moment): number[] {
    const wanted = query.trim().toLowerCase();
    if (!wanted) return [];
    const byNumber = /^#?(\d+)$/.exec(wanted);
    const found = [];
    for (let node = 0; node < moment.size; node++) {
      const text = this.data.text[node] as string;
      const hit = text.toLowerCase().includes(wanted) || (this.data.answer[node] ?? "").toLowerCase().includes(wanted);
      if (hit || (byNumber && Number(byNumber[1]) === node)) found.push(node);
    }
    return found;
  }

  label(node: number): string {
    return node === 0 ? "question" : summary(this.data.text[node] as string);
  }
}

function tail(values: number[]): number[] {
  return values.length ? [values[values.length - 1] as number] : [];
}

export type Filter = "all" | "answers" | "right" | "wrong" | "pruned" | "kept" | "gap";

export const FILTERS: [Filter, string][] = [
  ["all", "all nodes"],
  ["kept", "not pruned"],
  ["answers", "leaves with an answer"],
  ["right", "right answers"],
  ["wrong", "wrong answers"],
  ["pruned", "pruned"],
  ["gap", "|V − v̂| above 0.3"],
];

/** Whether `node` itself passes `filter`. */
export function passes(model: TreeModel, moment: Moment, node: number, filter: Filter): boolean {
  const kind = model.kind(node, moment);
  switch (filter) {
    case "all":
      return true;
    case "kept":
      return kind !== "pruned";
    case "answers":
      return kind === "answered" || kind === "correct" || kind === "wrong";
    case "right":
      return kind === "correct";
    case "wrong":
      return kind === "wrong";
    case "pruned":
      return kind === "pruned";
    case "gap":
      return Math.abs(model.difference(node) ?? 0) > 0.3;
  }
}

export interface Row {
  node: number;
  level: number;
  expandable: boolean;
  open: boolean;
  match: boolean;
}

/** Rows of the outline: nodes that pass the filter and what leads to them, folded where the reader folded them. */
export function outline(
  model: TreeModel,
  moment: Moment,
  filter: Filter,
  folded: ReadonlySet<number>,
  hits: ReadonlySet<number> | null,
): Row[] {
  const wanted = new Uint8Array(moment.size);
  const matches = new Uint8Array(moment.size);
  for (let node = moment.size - 1; node >= 0; node--) {
    const match = passes(model, moment, node, filter) && (hits === null || hits.has(node));
    if (match) matches[node] = 1;
    if (match || wanted[node] || node === 0) {
      wanted[node] = 1;
      const parent = model.data.parent[node] as number;
      if (parent >= 0) wanted[parent] = 1;
    }
  }
  const rows: Row[] = [];
  const stack = [0];
  while (stack.length) {
    const node = stack.pop() as number;
    const kids = (model.children[node] as number[]).filter((child) => child < moment.size && wanted[child]);
    const open = !folded.has(node);
    rows.push({
      node,
      level: (model.data.depth[node] as number) + 1,
      expandable: kids.length > 0,
      open,
      match: matches[node] === 1,
    });
    if (open) for (let index = kids.length - 1; index >= 0; index--) stack.push(kids[index] as number);
  }
  return rows;
}
