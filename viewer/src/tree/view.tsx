// One search: outline, disk and transcript of the same node, at any simulation.
import type { JSX } from "preact";
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { blob, type TreeData, type TreeInfo } from "../data";
import { go, useRoute } from "../route";
import { Text, number } from "../text";
import { Disk, exportPng, exportSvg } from "./disk";
import type { ColorBy, Scene, SizeBy } from "./draw";
import { FILTERS, outline, TreeModel, type Filter, type Moment } from "./model";
import { Outline } from "./outline";
import { Transcript } from "./transcript";

const COLORS: [ColorBy, string][] = [
  ["V", "potential V"],
  ["v", "value head v̂"],
  ["difference", "V − v̂"],
  ["prior", "prior"],
  ["depth", "depth"],
  ["visits", "visits"],
];

export function TreeView({ trees }: { trees: TreeInfo[] }): JSX.Element {
  const route = useRoute();
  const chosen = Math.max(0, Math.min(trees.length - 1, Number(route["t"] ?? 0) || 0));
  const info = trees[chosen] as TreeInfo;
  const [model, setModel] = useState<TreeModel | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  useEffect(() => {
    let current = true;
    setModel(null);
    blob<TreeData>(info.blob)
      .then((data) => current && setModel(new TreeModel(data)))
      .catch((error: unknown) => current && setProblem(String(error)));
    return () => {
      current = false;
    };
  }, [info.blob]);
  return (
    <div class="tree-view">
      {trees.length > 1 && (
        <label class="picker">
          Tree{" "}
          <select value={String(chosen)} onChange={(event) => go({ t: event.currentTarget.value, n: null, s: null })}>
            {trees.map((tree, index) => (
              <option key={index} value={String(index)}>
                {tree.title}
              </option>
            ))}
          </select>
        </label>
      )}
      {problem && <p role="alert">This tree cannot be read: {problem}</p>}
      {model ? <Loaded key={info.blob} model={model} name={`tree-${chosen}`} /> : !problem && <p>Reading the tree…</p>}
    </div>
  );
}

function Loaded({ model, name }: { model: TreeModel; name: string }): JSX.Element {
  const route = useRoute();
  const [filter, setFilter] = useState<Filter>("all");
  const [colorBy, setColorBy] = useState<ColorBy>(model.data.potential === null ? "v" : "V");
  const [sizeBy, setSizeBy] = useState<SizeBy>("same");
  const [folded, setFolded] = useState<ReadonlySet<number>>(new Set());
  const [query, setQuery] = useState("");
  const [playing, setPlaying] = useState(false);
  const [pane, setPane] = useState<"outline" | "disk" | "text">("outline");
  const scene = useRef<() => Scene | null>(() => null);
  const field = useRef<HTMLInputElement>(null);

  const simulation = Math.max(0, Math.min(model.last, route["s"] === undefined ? model.last : Number(route["s"]) || 0));
  const moment = useMemo<Moment>(() => model.at(simulation), [model, simulation]);
  const asked = Number(route["n"] ?? model.data.chosen ?? 0) || 0;
  const selected = Math.max(0, Math.min(moment.size - 1, asked));
  const found = useMemo(() => model.search(query, moment), [model, moment, query]);
  const hits = useMemo(() => (query.trim() ? new Set(found) : null), [found, query]);
  const rows = useMemo(() => outline(model, moment, filter, folded, hits), [model, moment, filter, folded, hits]);
  const landmarks = useMemo(() => model.landmarks(), [model]);
  const groups = useMemo(() => model.groups(moment), [model, moment]);

  const choose = useCallback(
    (node: number) => {
      // a node that is folded away comes into view
      setFolded((before) => {
        const path = model.path(node).slice(0, -1);
        if (!path.some((step) => before.has(step))) return before;
        const after = new Set(before);
        for (const step of path) after.delete(step);
        return after;
      });
      go({ n: node });
    },
    [model],
  );
  const visit = (node: number | null) => {
    if (node === null) return;
    setFilter("all");
    setQuery("");
    go({ s: null });
    choose(node);
    setPane((before) => (before === "disk" ? "disk" : "text"));
  };

  useEffect(() => {
    if (!playing) return;
    let frame = 0;
    let at = simulation >= model.last ? 0 : simulation;
    let before = performance.now();
    const pause = Math.max(33, Math.min(400, 12_000 / Math.max(1, model.last)));
    const step = (now: number) => {
      if (now - before >= pause) {
        before = now;
        at += 1;
        go({ s: at >= model.last ? null : at });
        if (at >= model.last) return setPlaying(false);
      }
      frame = requestAnimationFrame(step);
    };
    frame = requestAnimationFrame(step);
    return () => cancelAnimationFrame(frame);
  }, [playing, model]);

  useEffect(() => {
    const keys = (event: KeyboardEvent): void => {
      const target = event.target as HTMLElement;
      if (event.key === "Escape") {
        setQuery("");
        setFilter("all");
        setPlaying(false);
        (target as HTMLInputElement).blur?.();
        document.getElementById("outline")?.focus();
      } else if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName)) {
        event.preventDefault();
        field.current?.focus();
      }
    };
    addEventListener("keydown", keys);
    return () => removeEventListener("keydown", keys);
  }, []);

  const onFold = (node: number, close: boolean) =>
    setFolded((before) => {
      const after = new Set(before);
      if (close) after.add(node);
      else after.delete(node);
      return after;
    });
  const withScene = (use: (scene: Scene, name: string) => void) => {
    const now = scene.current();
    if (now) use(now, name);
  };
  const answers = moment.size ? groups.reduce((sum, group) => sum + group.leaves.length, 0) : 0;
  const description =
    `Search tree on the Poincaré disk: ${moment.size} nodes after ${simulation} simulations, ${answers} leaves with an answer. ` +
    "The outline beside it holds the same nodes as text.";
  return (
    <>
      <div class="toolbar">
        <label>
          Color{" "}
          <select value={colorBy} onChange={(event) => setColorBy(event.currentTarget.value as ColorBy)}>
            {COLORS.filter(([key]) => model.data.potential !== null || (key !== "V" && key !== "difference")).map(([key, words]) => (
              <option key={key} value={key}>
                {words}
              </option>
            ))}
          </select>
        </label>
        <label>
          Size{" "}
          <select value={sizeBy} onChange={(event) => setSizeBy(event.currentTarget.value as SizeBy)}>
            <option value="same">equal</option>
            <option value="visits">visits</option>
          </select>
        </label>
        <label>
          Show{" "}
          <select id="filter" value={filter} onChange={(event) => setFilter(event.currentTarget.value as Filter)}>
            {FILTERS.map(([key, words]) => (
              <option key={key} value={key}>
                {words}
              </option>
            ))}
          </select>
        </label>
        <label class="search">
          <span class="sr">Search in steps</span>
          <input
            ref={field}
            id="search"
            type="search"
            placeholder="Search steps  /"
            value={query}
            onInput={(event) => setQuery(event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key !== "Enter" || !found.length) return;
              const at = found.indexOf(selected);
              choose(found[(at + 1) % found.length] as number);
            }}
          />
          {query.trim() && <span aria-live="polite"> {found.length} found</span>}
        </label>
        <span class="grow" />
        <button type="button" onClick={() => withScene(exportSvg)}>
          Save SVG
        </button>
        <button type="button" onClick={() => withScene(exportPng)}>
          Save PNG
        </button>
      </div>
      <div class="toolbar">
        <button type="button" aria-pressed={playing} onClick={() => setPlaying(!playing)}>
          {playing ? "Pause" : "Replay"}
        </button>
        <label class="slider">
          Simulation{" "}
          <input
            id="simulation"
            type="range"
            min={0}
            max={model.last}
            value={simulation}
            onInput={(event) => {
              const at = Number(event.currentTarget.value);
              go({ s: at >= model.last ? null : at });
            }}
          />{" "}
          <output id="moment">
            {simulation} of {model.last}: {moment.size} nodes
          </output>
        </label>
        <span class="grow" />
        <span class="landmarks" role="group" aria-label="Go to">
          {landmarks.map(({ name: words, node }) => (
            <button type="button" key={words} disabled={node === null} onClick={() => visit(node)}>
              {words}
            </button>
          ))}
        </span>
      </div>
      <div class="panes-tabs" role="group" aria-label="Pane">
        {(["outline", "disk", "text"] as const).map((key) => (
          <button type="button" key={key} aria-pressed={pane === key} onClick={() => setPane(key)}>
            {{ outline: "Outline", disk: "Disk", text: "Path" }[key]}
          </button>
        ))}
      </div>
      <div class={`panes show-${pane}`}>
        <div class="pane pane-outline">
          <Outline
            model={model}
            moment={moment}
            rows={rows}
            selected={selected}
            onSelect={choose}
            onFold={onFold}
            onOpen={() => {
              setPane("text");
              document.getElementById("transcript")?.focus();
            }}
          />
        </div>
        <div class="pane pane-disk">
          <Disk
            model={model}
            moment={moment}
            filter={filter}
            hits={hits}
            selected={selected}
            colorBy={colorBy}
            sizeBy={sizeBy}
            onSelect={choose}
            onScene={(get) => {
              scene.current = get;
            }}
            description={description}
          />
          <Legend colorBy={colorBy} model={model} />
        </div>
        <div class="pane pane-text">
          <Groups groups={groups} selected={selected} onSelect={choose} />
          <Transcript model={model} moment={moment} node={selected} onSelect={choose} />
        </div>
      </div>
    </>
  );
}

function Groups(props: { groups: ReturnType<TreeModel["groups"]>; selected: number; onSelect(node: number): void }): JSX.Element {
  const { groups, onSelect } = props;
  if (!groups.length) return <p class="groups">No leaf gives an answer.</p>;
  return (
    <ul class="groups" aria-label="Leaves by answer">
      {groups.slice(0, 30).map((group) => (
        <li key={group.answer}>
          <button
            type="button"
            class={group.correct === null ? "" : group.correct ? "good" : "bad"}
            onClick={() => {
              const at = group.leaves.indexOf(props.selected);
              onSelect(group.leaves[(at + 1) % group.leaves.length] as number);
            }}
          >
            {group.leaves.length} → <Text text={group.answer.slice(0, 80)} />
            {group.correct === null ? "" : group.correct ? " right" : " wrong"}
            {group.chosen ? " (chosen)" : ""}
          </button>
        </li>
      ))}
      {groups.length > 30 && <li>and {groups.length - 30} more answers</li>}
    </ul>
  );
}

function Legend({ colorBy, model }: { colorBy: ColorBy; model: TreeModel }): JSX.Element {
  const ends: Record<ColorBy, [string, string]> = {
    V: ["V = 0", "1"],
    v: ["v̂ = 0", "1"],
    difference: ["v̂ too high", "v̂ too low"],
    prior: ["prior 0", "1"],
    depth: ["depth 0", `${model.data.depth.reduce((most, depth) => Math.max(most, depth), 0)}`],
    visits: ["no visit", `${number(model.data.visits[0], 0)}`],
  };
  return (
    <div class="legend">
      <span class="bar">
        {ends[colorBy][0]} <span class={colorBy === "difference" ? "scale diverging" : "scale"} aria-hidden="true" /> {ends[colorBy][1]}
      </span>
      <span>◉ question</span>
      <span>● step</span>
      {model.data.correct !== null ? (
        <>
          <span>★ right</span>
          <span>◆ wrong</span>
        </>
      ) : (
        <span>■ answer</span>
      )}
      <span>▲ no answer</span>
      <span>○ pruned</span>
      <p>
        {colorBy === "V" && `${model.data.potential_label}. `}
        Rings are true distances from the question; they are spread so that this tree’s nodes fill the disk. The angle has
        no meaning but that a subtree keeps together.
      </p>
    </div>
  );
}
