// Curves of training runs side by side, and the trees of chosen steps.
import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";
import { Plot } from "./chart";
import type { Chart, Manifest } from "./data";
import { go } from "./route";

const FIRST = ["accuracy", "pass_at_1", "solved", "reward", "value_loss", "loss", "kl", "entropy", "length"];

function rank(name: string): number {
  const at = FIRST.findIndex((word) => name.includes(word));
  return at < 0 ? FIRST.length : at;
}

export function Training({ manifest }: { manifest: Manifest }): JSX.Element {
  const [wanted, setWanted] = useState("");
  const metrics = useMemo(() => {
    const names = new Set(manifest.training.flatMap((run) => Object.keys(run.metrics)));
    return [...names].sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
  }, [manifest]);
  const shown = metrics.filter((name) => name.toLowerCase().includes(wanted.trim().toLowerCase()));
  const steps = manifest.trees.flatMap((tree, index) => (tree.step === null ? [] : [{ index, tree }]));
  return (
    <section class="card">
      <div class="toolbar">
        <label class="search">
          <span class="sr">Search in metrics</span>
          <input id="search" type="search" placeholder="Search metrics  /" value={wanted} onInput={(event) => setWanted(event.currentTarget.value)} />
        </label>
        <output>
          {shown.length} of {metrics.length} metrics
        </output>
      </div>
      {steps.length > 0 && (
        <p>
          Trees of chosen steps:{" "}
          {steps.map(({ index, tree }) => (
            <button key={index} type="button" class="link" onClick={() => go({ tab: "tree", t: index, n: null, s: null }, true)}>
              {tree.title}
            </button>
          ))}
        </p>
      )}
      <div class="charts">
        {shown.map((name) => {
          const chart: Chart = {
            kind: "chart",
            mark: "line",
            series: manifest.training.flatMap((run) => {
              const found = run.metrics[name];
              return found ? [{ name: run.name, x: found.x, y: found.y }] : [];
            }),
            xlabel: "training step",
            ylabel: name,
            caption: "",
            log: false,
            percent: false,
            unit: false,
            diagonal: false,
          };
          return <Plot key={name} chart={chart} />;
        })}
      </div>
    </section>
  );
}
