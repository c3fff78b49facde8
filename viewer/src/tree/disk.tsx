// The disk on a canvas: zoom, pan, hover, click; the same scene as SVG or PNG for a paper.
import { select } from "d3-selection";
import { zoom, zoomIdentity, type D3ZoomEvent, type ZoomBehavior } from "d3-zoom";
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { canvasPen, draw, nearest, positions, SvgPen, type Camera, type Scene, type Theme } from "./draw";
import type { ColorBy, SizeBy } from "./draw";
import { type Moment, passes, type Filter, type TreeModel } from "./model";

export function themeOf(node: Element): Theme {
  const style = getComputedStyle(node);
  const get = (name: string) => style.getPropertyValue(`--${name}`).trim();
  return {
    background: get("card"),
    disk: get("disk"),
    ink: get("ink"),
    muted: get("muted"),
    line: get("line"),
    accent: get("accent"),
    good: get("good"),
    bad: get("bad"),
  };
}

export function useScheme(): number {
  const [version, setVersion] = useState(0);
  useEffect(() => {
    const query = matchMedia("(prefers-color-scheme: dark)");
    const changed = () => setVersion((count) => count + 1);
    query.addEventListener("change", changed);
    addEventListener("lapha-scheme", changed);
    return () => {
      query.removeEventListener("change", changed);
      removeEventListener("lapha-scheme", changed);
    };
  }, []);
  return version;
}

interface DiskProps {
  model: TreeModel;
  moment: Moment;
  filter: Filter;
  hits: ReadonlySet<number> | null;
  selected: number;
  colorBy: ColorBy;
  sizeBy: SizeBy;
  onSelect(node: number): void;
  onScene(scene: () => Scene | null): void;
  description: string;
}

export function Disk(props: DiskProps): JSX.Element {
  const { model, moment, filter, hits, selected, colorBy, sizeBy, onSelect } = props;
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const scene = useRef<Scene | null>(null);
  const zoomer = useRef<ZoomBehavior<HTMLCanvasElement, unknown> | null>(null);
  const [size, setSize] = useState<[number, number]>([480, 480]);
  const [camera, setCamera] = useState<Camera>({ x: 0, y: 0, k: 1 });
  const [hover, setHover] = useState<{ node: number; x: number; y: number } | null>(null);
  const scheme = useScheme();
  const xy = useMemo(() => positions(model), [model]);
  const visible = useMemo(() => {
    const shown = new Uint8Array(moment.size);
    for (let node = 0; node < moment.size; node++)
      shown[node] = node === 0 || (passes(model, moment, node, filter) && (hits === null || hits.has(node))) ? 1 : 0;
    return shown;
  }, [model, moment, filter, hits]);

  useLayoutEffect(() => {
    const node = box.current;
    if (!node) return;
    const observer = new ResizeObserver(() => setSize([Math.max(200, node.clientWidth), Math.max(200, node.clientHeight)]));
    observer.observe(node);
    return () => observer.disconnect();
  }, []);

  useEffect(() => {
    const node = canvas.current;
    if (!node) return;
    const behavior = zoom<HTMLCanvasElement, unknown>()
      .scaleExtent([0.5, 60])
      .on("zoom", (event: D3ZoomEvent<HTMLCanvasElement, unknown>) => setCamera({ ...event.transform }));
    zoomer.current = behavior;
    select(node).call(behavior).on("dblclick.zoom", null);
    return () => void select(node).on(".zoom", null);
  }, []);

  useEffect(() => {
    if (canvas.current && zoomer.current) select(canvas.current).call(zoomer.current.transform, zoomIdentity);
  }, [model]);

  useLayoutEffect(() => {
    const node = canvas.current;
    if (!node || !box.current) return;
    const [width, height] = size;
    const ratio = Math.min(2, devicePixelRatio || 1);
    if (node.width !== width * ratio || node.height !== height * ratio) {
      node.width = width * ratio;
      node.height = height * ratio;
    }
    const theme = themeOf(box.current);
    scene.current = { model, moment, xy, visible, selected, colorBy, sizeBy, theme, width, height, camera, labels: true };
    const context = node.getContext("2d");
    if (!context) return;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    draw(canvasPen(context), scene.current);
    node.dataset["drawn"] = String(moment.size);
  }, [model, moment, xy, visible, selected, colorBy, sizeBy, size, camera, scheme]);

  useEffect(() => props.onScene(() => scene.current), []);

  const at = (event: MouseEvent): [number, number] => {
    const bounds = (event.currentTarget as HTMLElement).getBoundingClientRect();
    return [event.clientX - bounds.left, event.clientY - bounds.top];
  };
  const scale = (factor: number) => {
    if (canvas.current && zoomer.current) select(canvas.current).call(zoomer.current.scaleBy, factor);
  };
  return (
    <div class="disk-box" ref={box}>
      <canvas
        ref={canvas}
        role="img"
        aria-label={props.description}
        style={{ width: "100%", height: "100%", touchAction: "none" }}
        onMouseMove={(event) => {
          const [x, y] = at(event);
          const node = scene.current ? nearest(scene.current, x, y) : -1;
          setHover(node >= 0 ? { node, x, y } : null);
        }}
        onMouseLeave={() => setHover(null)}
        onClick={(event) => {
          const [x, y] = at(event);
          const node = scene.current ? nearest(scene.current, x, y, 18) : -1;
          if (node >= 0) onSelect(node);
        }}
      />
      {hover && hover.node < moment.size && (
        <div class="tip" style={{ left: `${Math.min(hover.x + 14, size[0] - 200)}px`, top: `${hover.y + 14}px` }}>
          <b>node {hover.node}</b> {model.label(hover.node).slice(0, 90)}
        </div>
      )}
      <div class="zoom" role="group" aria-label="Zoom">
        <button type="button" aria-label="Zoom in" onClick={() => scale(1.6)}>
          +
        </button>
        <button type="button" aria-label="Zoom out" onClick={() => scale(1 / 1.6)}>
          −
        </button>
        <button
          type="button"
          aria-label="Whole disk"
          onClick={() => {
            if (canvas.current && zoomer.current) select(canvas.current).call(zoomer.current.transform, zoomIdentity);
          }}
        >
          ⤢
        </button>
      </div>
    </div>
  );
}

function save(name: string, content: Blob): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function svgOf(scene: Scene): string {
  const pen = new SvgPen();
  draw(pen, scene);
  return pen.document(scene.width, scene.height, scene.theme.background);
}

export function exportSvg(scene: Scene, name: string): void {
  save(`${name}.svg`, new Blob([svgOf(scene)], { type: "image/svg+xml" }));
}

export function exportPng(scene: Scene, name: string): void {
  const canvas = document.createElement("canvas");
  canvas.width = 3 * scene.width;
  canvas.height = 3 * scene.height;
  const context = canvas.getContext("2d");
  if (!context) return;
  context.setTransform(3, 0, 0, 3, 0, 0);
  context.fillStyle = scene.theme.background;
  context.fillRect(0, 0, scene.width, scene.height);
  draw(canvasPen(context), scene);
  canvas.toBlob((content) => content && save(`${name}.png`, content), "image/png");
}
