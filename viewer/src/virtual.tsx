// A long list of which only the visible rows exist.
import type { ComponentChildren, HTMLAttributes, JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

export interface Window {
  first: number;
  last: number;
}

/** Rows of `height` pixels that a view of `size` pixels shows at scroll position `top`, and a few around them. */
export function windowOf(count: number, height: number, top: number, size: number, spare = 8): Window {
  const first = Math.max(0, Math.min(count, Math.floor(top / height) - spare));
  return { first, last: Math.min(count, Math.ceil((top + size) / height) + spare) };
}

export interface VirtualProps {
  count: number;
  height: number;
  focus: number; // row to keep in view, −1 for none
  row: (index: number) => ComponentChildren;
  attributes?: HTMLAttributes<HTMLDivElement>;
  header?: ComponentChildren;
  headerHeight?: number;
}

export function Virtual({ count, height, focus, row, attributes, header, headerHeight = 0 }: VirtualProps): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [size, setSize] = useState(600);
  useLayoutEffect(() => {
    const node = box.current;
    if (!node) return;
    const measure = () => setSize(node.clientHeight);
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(node);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    const node = box.current;
    if (!node || focus < 0) return;
    const place = focus * height;
    if (place < node.scrollTop) node.scrollTop = place;
    else if (place + height > node.scrollTop + node.clientHeight - headerHeight)
      node.scrollTop = place + height - node.clientHeight + headerHeight;
  }, [focus, count, height]);
  const { first, last } = windowOf(count, height, top, size);
  const rows = [];
  for (let index = first; index < last; index++) rows.push(row(index));
  return (
    <div
      {...attributes}
      ref={box}
      class={`virtual ${attributes?.class ?? ""}`}
      onScroll={(event) => setTop((event.currentTarget as HTMLDivElement).scrollTop)}
    >
      {header}
      <div role="presentation" style={{ height: `${count * height}px`, position: "relative" }}>
        <div role="presentation" style={{ transform: `translateY(${first * height}px)` }}>
          {rows}
        </div>
      </div>
    </div>
  );
}
