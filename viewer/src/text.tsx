// Text that models and users wrote: always text, never markup, and what hides or reorders characters is shown.
import type { JSX } from "preact";

// C0 and C1 controls but tab and newline, soft hyphen, zero-width and bidirectional controls, tags, lone surrogates
const HIDDEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]|\udb40[\udc00-\udfff]/g;

export function visible(text: string): (string | JSX.Element)[] {
  const parts: (string | JSX.Element)[] = [];
  let end = 0;
  for (const match of text.matchAll(HIDDEN)) {
    if (match.index > end) parts.push(text.slice(end, match.index));
    const code = (match[0].codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
    parts.push(
      <span class="hidden-char" title="a character that would not be seen">
        U+{code}
      </span>,
    );
    end = match.index + match[0].length;
  }
  if (end < text.length || parts.length === 0) parts.push(text.slice(end));
  return parts;
}

export function Text({ text }: { text: string }): JSX.Element {
  return <bdi>{visible(text)}</bdi>;
}

export interface Piece {
  kind: "header" | "thought" | "call" | "response" | "answer" | "text";
  text: string;
}

const TAGS: Record<string, Piece["kind"]> = {
  think: "thought",
  tool_call: "call",
  tool_response: "response",
  answer: "answer",
};
const PIECE = /<(think|tool_call|tool_response|answer)>([\s\S]*?)(?:<\/\1>|$)/g;

/** A step's text as thoughts, tool calls, tool output and answer. What has no tag stays as it is. */
export function pieces(step: string): Piece[] {
  const found: Piece[] = [];
  let rest = step;
  const header = /^STEP-\d+:\s*/.exec(rest);
  if (header) {
    found.push({ kind: "header", text: header[0].trim() });
    rest = rest.slice(header[0].length);
  }
  let end = 0;
  for (const match of rest.matchAll(PIECE)) {
    const before = rest.slice(end, match.index).trim();
    if (before) found.push({ kind: "text", text: before });
    found.push({ kind: TAGS[match[1] as string] as Piece["kind"], text: (match[2] as string).trim() });
    end = match.index + match[0].length;
  }
  const after = rest.slice(end).trim();
  if (after) found.push({ kind: "text", text: after });
  return found;
}

/** One line of a step for the outline: the answer, the call, or the thought. */
export function summary(step: string, limit = 160): string {
  const parts = pieces(step).filter((piece) => piece.kind !== "header");
  const first =
    parts.find((piece) => piece.kind === "answer") ?? parts.find((piece) => piece.kind === "call") ?? parts[0];
  const flat = (first?.text ?? step).slice(0, 4 * limit).replace(/\s+/g, " ").trim();
  return flat.length > limit ? flat.slice(0, limit - 1) + "…" : flat;
}

export function number(value: number | null | undefined, digits = 3): string {
  return value === null || value === undefined || !Number.isFinite(value) ? "–" : value.toFixed(digits);
}

export function percent(value: number): string {
  return `${(100 * value).toFixed(1)} %`;
}
