// What the Python side puts into the page. Every blob is gzip-compressed JSON in base64, decoded when it is needed.

export type Verdict = boolean | null;

export interface Table {
  kind: "table";
  columns: string[];
  rows: (string | number | null)[][];
  caption: string;
  emphasized: number[];
}

export interface Series {
  name: string;
  x: number[];
  y: (number | null)[];
  low?: (number | null)[];
  high?: (number | null)[];
  size?: number[];
}

export interface Chart {
  kind: "chart";
  mark: "line" | "point" | "calibration";
  series: Series[];
  xlabel: string;
  ylabel: string;
  caption: string;
  log: boolean;
  percent: boolean;
  unit: boolean;
  diagonal: boolean;
}

export interface Section {
  heading: string;
  text: string;
  items: (Table | Chart)[];
}

export interface RunInfo {
  name: string;
  modes: string[];
  problems: number;
  blob: string;
  samples: string[];
  chunk: number;
}

export interface TreeInfo {
  blob: string;
  title: string;
  run: number | null;
  index: number | null;
  step: number | null;
  nodes: number;
}

export interface TrainingRun {
  name: string;
  metrics: Record<string, { x: number[]; y: (number | null)[] }>;
}

export interface Comparison {
  mode: string;
  base: number;
  other: number;
  difference: number;
  low: number;
  high: number;
  count: number;
  verdict: string;
}

export interface Manifest {
  format: string;
  version: number;
  title: string;
  subtitle: string;
  footer: string;
  facts: [string, string][];
  sections: Section[];
  runs: RunInfo[];
  trees: TreeInfo[];
  training: TrainingRun[];
  comparisons: Comparison[];
}

export interface ModeColumns {
  answer: (string | null)[];
  correct: Verdict[];
  value: (number | null)[];
  tokens: (number | null)[];
  samples: (number | null)[];
}

export interface Problems {
  index: number[];
  question: string[];
  gold: (string | null)[];
  modes: Record<string, ModeColumns>;
}

export interface SampleRecord {
  answer: string | null;
  correct: Verdict;
  value: number | null;
  text: string | null;
}

// problem index -> mode -> what the mode produced
export type Samples = Record<string, Record<string, SampleRecord[]>>;

export interface TreeData {
  question: string;
  parent: number[];
  depth: number[];
  status: number[];
  simulation: number[];
  pruned_at: number[];
  visits: number[];
  value: (number | null)[];
  prior: (number | null)[];
  backed_up: (number | null)[];
  revisits: [number, number][];
  tokens: number[];
  text: string[];
  answer: (string | null)[];
  potential: (number | null)[] | null;
  potential_label: string;
  correct: boolean[] | null;
  chosen: number | null;
  merged: number[];
  group: number[];
  groups: string[];
  theta: number[];
  distance: number[];
  knots: [number, number][];
  rings: number[];
}

export function element(id: string): HTMLElement | null {
  return document.getElementById(id);
}

const cache = new Map<string, Promise<unknown>>();

/** The blob `name`, decoded once. */
export function blob<T>(name: string): Promise<T> {
  let found = cache.get(name);
  if (!found) {
    found = decode(element(`blob-${name}`)?.textContent ?? "");
    cache.set(name, found);
    if (cache.size > 64) cache.delete(cache.keys().next().value as string);
  }
  return found as Promise<T>;
}

export async function decode(text: string): Promise<unknown> {
  const binary = atob(text.trim());
  const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}
