// The tree as text: a foldable outline that the keyboard walks.
import type { JSX } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { Text, number } from "../text";
import { Virtual } from "../virtual";
import type { Moment, Row, TreeModel } from "./model";
import { STATUS } from "./model";

interface OutlineProps {
  model: TreeModel;
  moment: Moment;
  rows: Row[];
  selected: number;
  onSelect(node: number): void;
  onFold(node: number, folded: boolean): void;
  onOpen(): void;
}

const MARKS = { root: "◉", open: "○", answered: "■", correct: "★", wrong: "◆", ended: "▲", pruned: "×" } as const;
export const KIND_WORDS = {
  root: "question",
  open: "step",
  answered: "answer",
  correct: "right answer",
  wrong: "wrong answer",
  ended: "ended without an answer",
  pruned: "pruned",
} as const;

export function Outline({ model, moment, rows, selected, onSelect, onFold, onOpen }: OutlineProps): JSX.Element {
  const place = useMemo(() => new Map(rows.map((row, index) => [row.node, index])), [rows]);
  const here = place.get(selected) ?? -1;
  const box = useRef<HTMLElement | null>(null);
  useEffect(() => {
    box.current = document.getElementById("outline");
  }, []);
  const keys = (event: KeyboardEvent): void => {
    const row = rows[here];
    const move = (index: number) => {
      const target = rows[Math.max(0, Math.min(rows.length - 1, index))];
      if (target) onSelect(target.node);
    };
    switch (event.key) {
      case "ArrowDown":
        move(here + 1);
        break;
      case "ArrowUp":
        move(here - 1);
        break;
      case "Home":
        move(0);
        break;
      case "End":
        move(rows.length - 1);
        break;
      case "ArrowRight":
        if (row?.expandable && !row.open) onFold(row.node, false);
        else if (row?.expandable) move(here + 1);
        break;
      case "ArrowLeft":
        if (row?.expandable && row.open) onFold(row.node, true);
        else if (row && row.node > 0) onSelect(model.data.parent[row.node] as number);
        break;
      case "Enter":
        onOpen();
        break;
      default:
        return;
    }
    event.preventDefault();
  };
  return (
    <Virtual
      count={rows.length}
      height={26}
      focus={here}
      attributes={{
        id: "outline",
        class: "outline",
        role: "tree",
        tabIndex: 0,
        "aria-label": "Search tree",
        "aria-activedescendant": here >= 0 ? `row-${selected}` : undefined,
        onKeyDown: keys,
      }}
      row={(index) => {
        const row = rows[index] as Row;
        const kind = model.kind(row.node, moment);
        return (
          <div
            key={row.node}
            id={`row-${row.node}`}
            role="treeitem"
            aria-level={row.level}
            aria-selected={row.node === selected}
            aria-expanded={row.expandable ? row.open : undefined}
            class={`row kind-${kind}${row.node === selected ? " selected" : ""}${row.match ? "" : " context"}`}
            style={{ paddingLeft: `${6 + 14 * (row.level - 1)}px` }}
            onClick={() => onSelect(row.node)}
          >
            <span
              class="fold"
              aria-hidden="true"
              onClick={(event) => {
                if (!row.expandable) return;
                event.stopPropagation();
                onFold(row.node, row.open);
              }}
            >
              {row.expandable ? (row.open ? "▾" : "▸") : ""}
            </span>
            <span class={`mark ${kind}`} role="img" aria-label={KIND_WORDS[kind]}>
              {MARKS[kind]}
            </span>
            <span class="words">
              {row.node === 0 ? <Text text={model.data.question} /> : <Text text={model.label(row.node)} />}
            </span>
            {row.node === model.data.chosen && <span class="badge">chosen</span>}
            <span class="numbers">
              {model.data.potential !== null && `V ${number(model.potential(row.node), 2)} `}v̂{" "}
              {number(model.value(row.node), 2)} · {moment.visits[row.node]}
            </span>
          </div>
        );
      }}
    />
  );
}

export function statusWords(model: TreeModel, moment: Moment, node: number): string {
  const kind = model.kind(node, moment);
  return kind === "ended" ? (STATUS[model.data.status[node] as number] ?? kind) : KIND_WORDS[kind];
}
