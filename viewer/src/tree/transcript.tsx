// The whole path to a node, read as one transcript.
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Text, number, pieces } from "../text";
import type { Moment, TreeModel } from "./model";
import { statusWords } from "./outline";

const LONG = 12_000; // characters of one piece that are shown at once

export function Long({ text }: { text: string }): JSX.Element {
  const [whole, setWhole] = useState(false);
  if (whole || text.length <= LONG) return <Text text={text} />;
  return (
    <>
      <Text text={text.slice(0, LONG)} />…{" "}
      <button type="button" class="link" onClick={() => setWhole(true)}>
        show all {text.length.toLocaleString("en")} characters
      </button>
    </>
  );
}

const NAMES = {
  header: "",
  thought: "thought",
  call: "tool call",
  response: "tool output",
  answer: "answer",
  text: "",
} as const;

export function StepText({ text }: { text: string }): JSX.Element {
  return (
    <>
      {pieces(text).map((piece, index) =>
        piece.kind === "header" ? null : (
          <div key={index} class={`piece ${piece.kind}`}>
            {NAMES[piece.kind] && <span class="piece-name">{NAMES[piece.kind]}</span>}
            <pre>
              <Long text={piece.text} />
            </pre>
          </div>
        ),
      )}
    </>
  );
}

interface TranscriptProps {
  model: TreeModel;
  moment: Moment;
  node: number;
  onSelect(node: number): void;
}

export function Transcript({ model, moment, node, onSelect }: TranscriptProps): JSX.Element {
  const end = useRef<HTMLElement>(null);
  useEffect(() => {
    const box = end.current?.parentElement; // scrolls this pane alone, not the page around it
    if (box && end.current) box.scrollTop = end.current.offsetTop - box.offsetTop - 8;
  }, [node, model]);
  const { data } = model;
  return (
    <div id="transcript" class="transcript" tabIndex={0} role="region" aria-label={`Path to node ${node}`}>
      {model.path(node).map((step) => (
        <section
          key={step}
          ref={step === node ? end : null}
          class={`step${step === node ? " current" : ""}`}
          aria-label={step === 0 ? "Question" : `Node ${step}`}
        >
          <header>
            <button type="button" class="link" onClick={() => onSelect(step)}>
              {step === 0 ? "Question" : `Step ${data.depth[step]} · node ${step}`}
            </button>
            <span class="facts">
              {statusWords(model, moment, step)}
              {data.potential !== null && ` · V ${number(model.potential(step))}`} · v̂ {number(model.value(step))}
              {" · prior "}
              {number(data.prior[step])} · visits {moment.visits[step]} · simulation {data.simulation[step]} ·{" "}
              {data.tokens[step]} tokens
            </span>
          </header>
          {step === 0 ? (
            <pre>
              <Long text={data.question} />
            </pre>
          ) : (
            <StepText text={data.text[step] as string} />
          )}
          {data.answer[step] != null && (
            <p class="answer-line">
              answer <b dir="auto"><Text text={data.answer[step] as string} /></b>
              {data.correct !== null && (data.correct[step] ? " · right" : " · wrong")}
            </p>
          )}
          {(data.pruned_at[step] as number) >= 0 && (
            <p class="answer-line">
              pruned after simulation {data.pruned_at[step]}
              {(data.merged[step] as number) >= 0 && (
                <>
                  {"; nearest node that was kept: "}
                  <button type="button" class="link" onClick={() => onSelect(data.merged[step] as number)}>
                    {data.merged[step]}
                  </button>
                </>
              )}
            </p>
          )}
        </section>
      ))}
    </div>
  );
}
