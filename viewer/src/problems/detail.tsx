// One problem: the question, and what every mode made of it.
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { blob, type Manifest, type Problems, type RunInfo, type SampleRecord, type Samples } from "../data";
import { go } from "../route";
import { Text, number } from "../text";
import { Long, StepText } from "../tree/transcript";

interface DetailProps {
  manifest: Manifest;
  run: RunInfo;
  problems: Problems;
  row: number;
  tree: number | null;
  onClose(): void;
}

export function Detail({ run, problems, row, tree, onClose }: DetailProps): JSX.Element | null {
  const box = useRef<HTMLDivElement>(null);
  const [samples, setSamples] = useState<Record<string, SampleRecord[]> | null>(null);
  const name = row >= 0 ? run.samples[Math.floor(row / run.chunk)] : undefined;
  useEffect(() => {
    setSamples(null);
    if (name === undefined) return;
    let current = true;
    void blob<Samples>(name).then((found) => current && setSamples(found[String(problems.index[row])] ?? {}));
    return () => {
      current = false;
    };
  }, [name, row]);
  useEffect(() => box.current?.focus(), [row]);
  if (row < 0) return null;
  return (
    <div
      ref={box}
      class="detail"
      role="dialog"
      aria-label={`Problem ${problems.index[row]}`}
      tabIndex={-1}
      onKeyDown={(event) => event.key === "Escape" && onClose()}
    >
      <header>
        <h2>Problem {problems.index[row]}</h2>
        {tree !== null && (
          <button type="button" onClick={() => go({ tab: "tree", t: tree, n: null, s: null }, true)}>
            Open its tree
          </button>
        )}
        <button type="button" onClick={onClose}>
          Close
        </button>
      </header>
      <div class="detail-body" tabIndex={0} role="region" aria-label="Question and answers">
        <pre class="question">
          <Long text={problems.question[row] as string} />
        </pre>
        <p>
          gold{" "}
          <b dir="auto">
            <Text text={problems.gold[row] ?? "–"} />
          </b>
        </p>
        {run.modes.map((mode) => {
          const columns = problems.modes[mode];
          const list = samples?.[mode] ?? [];
          const correct = columns?.correct[row] ?? null;
          return (
            <section key={mode} class="mode">
              <h3>
                {mode}: <Text text={columns?.answer[row] ?? "no answer"} />
                {columns?.answer[row] == null ? "" : correct === null ? " · ungradable" : correct ? " · right" : " · wrong"}
              </h3>
              <p class="facts">
                v̂ {number(columns?.value[row])} · {columns?.tokens[row] ?? "–"} tokens · {columns?.samples[row] ?? list.length} answers
              </p>
              {list.map((sample, index) => (
                <details key={index} open={list.length === 1 && sample.text !== null}>
                  <summary>
                    {index + 1}. <Text text={sample.answer ?? "no answer"} />
                    {sample.answer === null ? "" : sample.correct === null ? " ?" : sample.correct ? " ✓" : " ✗"}
                    {sample.value !== null && ` · v̂ ${number(sample.value, 2)}`}
                  </summary>
                  {sample.text === null ? <p class="facts">This run did not keep the text.</p> : <StepText text={sample.text} />}
                </details>
              ))}
            </section>
          );
        })}
      </div>
    </div>
  );
}
