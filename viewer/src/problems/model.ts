// Filtering, sorting and searching the problems of a run. No drawing here.
import type { ModeColumns, Problems, Verdict } from "../data";

export type Wanted = "any" | "right" | "wrong" | "none" | "ungraded";
export const WANTED: [Wanted, string][] = [
  ["any", "any"],
  ["right", "right"],
  ["wrong", "wrong"],
  ["none", "no answer"],
  ["ungraded", "ungradable"],
];

export interface Query {
  text: string;
  wanted: Record<string, Wanted>; // mode -> what its answer must be
  tree: boolean; // only problems whose tree is in the page
  sort: string; // "index", "question", "gold", or "mode:column"
  down: boolean;
}

export function verdictOf(columns: ModeColumns | undefined, row: number): Wanted {
  if (!columns) return "any";
  if (columns.answer[row] === null || columns.answer[row] === undefined) return "none";
  const correct: Verdict = columns.correct[row] ?? null;
  return correct === null ? "ungraded" : correct ? "right" : "wrong";
}

/** Rows that a query keeps, in its order. */
export function select(problems: Problems, query: Query, hasTree: (index: number) => boolean): number[] {
  const text = query.text.trim().toLowerCase();
  const wanted = Object.entries(query.wanted).filter(([, value]) => value !== "any");
  const rows: number[] = [];
  for (let row = 0; row < problems.index.length; row++) {
    if (query.tree && !hasTree(problems.index[row] as number)) continue;
    if (wanted.some(([mode, value]) => verdictOf(problems.modes[mode], row) !== value)) continue;
    if (text && !matches(problems, row, text)) continue;
    rows.push(row);
  }
  const key = sortKey(problems, query.sort);
  const sign = query.down ? -1 : 1;
  return rows.sort((a, b) => {
    const x = key(a);
    const y = key(b);
    if (x === null || y === null) return (x === null ? 1 : 0) - (y === null ? 1 : 0) || a - b; // unknown last
    return (x < y ? -sign : x > y ? sign : 0) || a - b;
  });
}

function matches(problems: Problems, row: number, text: string): boolean {
  if ((problems.question[row] as string).toLowerCase().includes(text)) return true;
  if ((problems.gold[row] ?? "").toLowerCase().includes(text)) return true;
  return Object.values(problems.modes).some((columns) => (columns.answer[row] ?? "").toLowerCase().includes(text));
}

const ORDER: Record<Wanted, number> = { right: 0, wrong: 1, none: 2, ungraded: 3, any: 4 };

function sortKey(problems: Problems, sort: string): (row: number) => string | number | null {
  const [mode, column] = sort.split(":");
  if (column && mode !== undefined) {
    const columns = problems.modes[mode];
    if (!columns) return () => null;
    if (column === "answer") return (row) => ORDER[verdictOf(columns, row)];
    return (row) => columns[column as "value" | "tokens"][row] ?? null;
  }
  if (sort === "question") return (row) => (problems.question[row] as string).toLowerCase();
  if (sort === "gold") return (row) => problems.gold[row] ?? null;
  return (row) => problems.index[row] as number;
}

/** How often the two runs' answers of one mode are both right, one right, none: (both, first, second, none). */
export function agreement(first: ModeColumns, second: ModeColumns, pairs: [number, number][]): number[] {
  const counts = [0, 0, 0, 0];
  for (const [a, b] of pairs) {
    const x = verdictOf(first, a) === "right";
    const y = verdictOf(second, b) === "right";
    counts[x && y ? 0 : x ? 1 : y ? 2 : 3]! += 1;
  }
  return counts;
}

/** Rows of two runs that ask the same question, by its text. */
export function common(first: Problems, second: Problems): [number, number][] {
  const places = new Map<string, number[]>();
  second.question.forEach((question, row) => {
    const found = places.get(question);
    if (found) found.push(row);
    else places.set(question, [row]);
  });
  const pairs: [number, number][] = [];
  first.question.forEach((question, row) => {
    const other = places.get(question)?.shift();
    if (other !== undefined) pairs.push([row, other]);
  });
  return pairs;
}
