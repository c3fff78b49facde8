// Two runs, problem by problem.
import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";
import type { Manifest } from "./data";
import { agreement, common, verdictOf } from "./problems/model";
import { MARK, useProblems } from "./problems/table";
import { Text } from "./text";
import { Virtual } from "./virtual";

const SHOWN = ["only the first is right", "only the second is right", "both are right", "none is right", "all"] as const;

export function Compare({ manifest }: { manifest: Manifest }): JSX.Element {
  const [base, setBase] = useState(0);
  const [other, setOther] = useState(Math.min(1, manifest.runs.length - 1));
  const first = useProblems(manifest.runs[base]?.blob);
  const second = useProblems(manifest.runs[other]?.blob);
  const shared = manifest.runs[base]?.modes.filter((mode) => manifest.runs[other]?.modes.includes(mode)) ?? [];
  const [asked, setMode] = useState("value");
  const mode = shared.includes(asked) ? asked : (shared[0] ?? "");
  const [shown, setShown] = useState<(typeof SHOWN)[number]>(SHOWN[0]);
  const pairs = useMemo(() => (first && second ? common(first, second) : []), [first, second]);
  const left = first?.modes[mode];
  const right = second?.modes[mode];
  const counts = left && right ? agreement(left, right, pairs) : [0, 0, 0, 0];
  const rows = useMemo(() => {
    if (!left || !right) return [];
    return pairs.filter(([a, b]) => {
      const x = verdictOf(left, a) === "right";
      const y = verdictOf(right, b) === "right";
      return shown === "all" || (x && y ? shown === SHOWN[2] : x ? shown === SHOWN[0] : y ? shown === SHOWN[1] : shown === SHOWN[3]);
    });
  }, [pairs, left, right, shown]);
  const known = manifest.comparisons.find((entry) => entry.mode === mode && entry.base === base && entry.other === other);
  const pick = (label: string, value: number, set: (value: number) => void) => (
    <label>
      {label}{" "}
      <select value={String(value)} onChange={(event) => set(Number(event.currentTarget.value))}>
        {manifest.runs.map((run, index) => (
          <option key={index} value={String(index)}>
            {run.name}
          </option>
        ))}
      </select>
    </label>
  );
  return (
    <div class="problems">
      <div class="toolbar">
        {pick("First", base, setBase)}
        {pick("Second", other, setOther)}
        <label>
          Mode{" "}
          <select value={mode} onChange={(event) => setMode(event.currentTarget.value)}>
            {shared.map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <label>
          Show{" "}
          <select value={shown} onChange={(event) => setShown(event.currentTarget.value as (typeof SHOWN)[number])}>
            {SHOWN.map((words) => (
              <option key={words} value={words}>
                {words}
              </option>
            ))}
          </select>
        </label>
        <output>{rows.length} shown</output>
      </div>
      <p class="lead">
        {pairs.length} common problems: both right {counts[0]}, only the first {counts[1]}, only the second {counts[2]}, none{" "}
        {counts[3]}.
        {known &&
          ` Second − first: ${(100 * known.difference).toFixed(1)} points, 95 % interval ${(100 * known.low).toFixed(1)} to ${(100 * known.high).toFixed(1)}${known.verdict ? ` (${known.verdict})` : ""}.`}
      </p>
      {first && second && left && right && (
        <Virtual
          count={rows.length}
          height={30}
          focus={-1}
          headerHeight={34}
          attributes={{ class: "grid-table", role: "grid", tabIndex: 0, "aria-label": "Paired problems" }}
          header={
            <div class="grid-row head compare" role="row">
              {["#", "question", "gold", "first", "second"].map((words) => (
                <span key={words} role="columnheader">
                  {words}
                </span>
              ))}
            </div>
          }
          row={(index) => {
            const [a, b] = rows[index] as [number, number];
            return (
              <div key={a} class="grid-row compare" role="row">
                <span role="gridcell">{first.index[a]}</span>
                <span role="gridcell" class="clip">
                  <Text text={(first.question[a] as string).slice(0, 300)} />
                </span>
                <span role="gridcell" class="clip">
                  <Text text={(first.gold[a] ?? "–").slice(0, 80)} />
                </span>
                {[verdictOf(left, a), verdictOf(right, b)].map((verdict, side) => (
                  <span key={side} role="gridcell" class={`clip verdict-${verdict}`}>
                    {MARK[verdict]} <Text text={((side === 0 ? left.answer[a] : right.answer[b]) ?? "").slice(0, 80)} />
                  </span>
                ))}
              </div>
            );
          }}
        />
      )}
    </div>
  );
}
