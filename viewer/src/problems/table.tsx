// All problems of a run: sorted, filtered, searched; ten thousand rows stay fluid.
import type { JSX } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import { blob, type Manifest, type Problems } from "../data";
import { go, useRoute } from "../route";
import { Text, number } from "../text";
import { Virtual } from "../virtual";
import { Detail } from "./detail";
import { select, verdictOf, WANTED, type Query, type Wanted } from "./model";

export const MARK: Record<Wanted, string> = { right: "✓", wrong: "✗", none: "–", ungraded: "?", any: "" };
const WORDS: Record<Wanted, string> = { right: "right", wrong: "wrong", none: "no answer", ungraded: "ungradable", any: "" };

export function useProblems(name: string | undefined): Problems | null {
  const [problems, setProblems] = useState<Problems | null>(null);
  useEffect(() => {
    if (name === undefined) return;
    let current = true;
    setProblems(null);
    void blob<Problems>(name).then((found) => current && setProblems(found));
    return () => {
      current = false;
    };
  }, [name]);
  return problems;
}

export function ProblemsView({ manifest }: { manifest: Manifest }): JSX.Element {
  const route = useRoute();
  const at = Math.max(0, Math.min(manifest.runs.length - 1, Number(route["r"] ?? 0) || 0));
  const run = manifest.runs[at];
  const problems = useProblems(run?.blob);
  const trees = useMemo(
    () => new Map(manifest.trees.flatMap((tree, place) => (tree.run === at && tree.index !== null ? [[tree.index, place]] : []))),
    [manifest, at],
  );
  const [query, setQuery] = useState<Query>({ text: "", wanted: {}, tree: false, sort: "index", down: false });
  const rows = useMemo(
    () => (problems ? select(problems, query, (index) => trees.has(index)) : []),
    [problems, query, trees],
  );
  const [focus, setFocus] = useState(0);
  const open = route["p"] === undefined ? null : Number(route["p"]);
  if (!run) return <p>This page holds no run.</p>;
  const modes = run.modes;
  const columns = `64px minmax(220px, 1fr) 110px ${modes.map(() => "minmax(96px, 150px) 58px 66px").join(" ")}`;
  const width = 64 + 220 + 110 + modes.length * 232;
  const sortBy = (sort: string) =>
    setQuery((before) => ({ ...before, sort, down: before.sort === sort ? !before.down : sort.includes(":") && !sort.endsWith(":answer") }));
  const head = (sort: string, words: string, title?: string) => (
    <span
      role="columnheader"
      class={title ? "right" : ""} aria-sort={query.sort === sort ? (query.down ? "descending" : "ascending") : "none"}>
      <button type="button" class="sort" title={title} onClick={() => sortBy(sort)}>
        {words}
        {query.sort === sort ? (query.down ? " ↓" : " ↑") : ""}
      </button>
    </span>
  );
  const place = Math.min(focus, Math.max(0, rows.length - 1));
  const show = (row: number) => problems && go({ p: problems.index[row] as number, r: at === 0 ? null : at }, true);
  return (
    <div class="problems">
      <div class="toolbar">
        {manifest.runs.length > 1 && (
          <label>
            Run{" "}
            <select value={String(at)} onChange={(event) => go({ r: event.currentTarget.value, p: null })}>
              {manifest.runs.map((entry, index) => (
                <option key={index} value={String(index)}>
                  {entry.name}
                </option>
              ))}
            </select>
          </label>
        )}
        <label class="search">
          <span class="sr">Search in questions and answers</span>
          <input
            id="search"
            type="search"
            placeholder="Search  /"
            value={query.text}
            onInput={(event) => setQuery({ ...query, text: event.currentTarget.value })}
          />
        </label>
        {modes.map((mode) => (
          <label key={mode}>
            {mode}{" "}
            <select
              value={query.wanted[mode] ?? "any"}
              onChange={(event) => setQuery({ ...query, wanted: { ...query.wanted, [mode]: event.currentTarget.value as Wanted } })}
            >
              {WANTED.map(([key, words]) => (
                <option key={key} value={key}>
                  {words}
                </option>
              ))}
            </select>
          </label>
        ))}
        {trees.size > 0 && (
          <label>
            <input
              type="checkbox"
              checked={query.tree}
              onChange={(event) => setQuery({ ...query, tree: event.currentTarget.checked })}
            />{" "}
            with a tree
          </label>
        )}
        {modes.includes("value") && modes.includes("best-of-n") && (
          <button
            type="button"
            onClick={() => setQuery({ ...query, wanted: { value: "wrong", "best-of-n": "right" } })}
          >
            value wrong, best-of-n right
          </button>
        )}
        <button type="button" onClick={() => setQuery({ ...query, text: "", wanted: {}, tree: false })}>
          Clear
        </button>
        <output id="count" aria-live="polite">
          {rows.length} of {run.problems}
        </output>
      </div>
      {!problems ? (
        <p>Reading the problems…</p>
      ) : (
        <Virtual
          count={rows.length}
          height={30}
          focus={place}
          headerHeight={34}
          attributes={{
            id: "problems",
            class: "grid-table",
            role: "grid",
            tabIndex: 0,
            "aria-label": "Problems",
            "aria-rowcount": rows.length + 1,
            "aria-activedescendant": rows.length ? `problem-${rows[place]}` : undefined,
            onKeyDown: (event: KeyboardEvent) => {
              const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15 }[event.key];
              if (step) setFocus(Math.max(0, Math.min(rows.length - 1, place + step)));
              else if (event.key === "Home") setFocus(0);
              else if (event.key === "End") setFocus(rows.length - 1);
              else if (event.key === "Enter" && rows.length) show(rows[place] as number);
              else return;
              event.preventDefault();
            },
          }}
          header={
            <div class="grid-row head" role="row" aria-rowindex={1} style={{ gridTemplateColumns: columns, minWidth: `${width}px` }}>
              {head("index", "#")}
              {head("question", "question")}
              {head("gold", "gold")}
              {modes.flatMap((mode) => [
                head(`${mode}:answer`, mode),
                head(`${mode}:value`, "v̂", `v̂ of ${mode}`),
                head(`${mode}:tokens`, "tokens", `tokens of ${mode}`),
              ])}
            </div>
          }
          row={(at_) => {
            const row = rows[at_] as number;
            return (
              <div
                key={row}
                id={`problem-${row}`}
                role="row"
                aria-rowindex={at_ + 2}
                aria-selected={at_ === place}
                class={`grid-row${at_ === place ? " selected" : ""}`}
                style={{ gridTemplateColumns: columns, minWidth: `${width}px` }}
                onClick={() => {
                  setFocus(at_);
                  show(row);
                }}
              >
                <span role="gridcell">
                  {problems.index[row]}
                  {trees.has(problems.index[row] as number) && (
                    <span role="img" aria-label="with a tree" title="with a tree">
                      {" ◉"}
                    </span>
                  )}
                </span>
                <span role="gridcell" class="clip">
                  <Text text={(problems.question[row] as string).slice(0, 300)} />
                </span>
                <span role="gridcell" class="clip">
                  <Text text={(problems.gold[row] ?? "–").slice(0, 80)} />
                </span>
                {modes.flatMap((mode) => {
                  const found = problems.modes[mode];
                  const verdict = verdictOf(found, row);
                  return [
                    <span key={mode} role="gridcell" class={`clip verdict-${verdict}`}>
                      <span role="img" aria-label={WORDS[verdict]}>
                        {MARK[verdict]}
                      </span>{" "}
                      <Text text={(found?.answer[row] ?? "").slice(0, 60)} />
                    </span>,
                    <span key={`${mode}v`} role="gridcell" class="right">
                      {number(found?.value[row], 2)}
                    </span>,
                    <span key={`${mode}t`} role="gridcell" class="right">
                      {found?.tokens[row] ?? "–"}
                    </span>,
                  ];
                })}
              </div>
            );
          }}
        />
      )}
      {problems && open !== null && (
        <Detail
          manifest={manifest}
          run={run}
          problems={problems}
          row={problems.index.indexOf(open)}
          tree={trees.get(open) ?? null}
          onClose={() => {
            go({ p: null });
            document.getElementById("problems")?.focus();
          }}
        />
      )}
    </div>
  );
}
