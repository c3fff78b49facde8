// The disk's geometry, drawn through a pen that is either a canvas or an SVG document.
import { diverging, viridis } from "../colors";
import type { Kind, Moment, TreeModel } from "./model";

export type ColorBy = "V" | "v" | "difference" | "prior" | "depth" | "visits";
export type SizeBy = "same" | "visits";

export interface Theme {
  background: string;
  disk: string;
  ink: string;
  muted: string;
  line: string;
  accent: string;
  good: string;
  bad: string;
}

export interface Pen {
  circle(x: number, y: number, radius: number, fill: string | null, stroke: string | null, width: number): void;
  path(points: string, fill: string | null, stroke: string | null, width: number, opacity: number): void;
  text(x: number, y: number, text: string, fill: string, size: number): void;
}

export interface Camera {
  x: number;
  y: number;
  k: number;
}

/** Radius in [0, 1] at which a node of distance `d` from the root is drawn: straight lines between knots. */
export function radiusOf(knots: [number, number][], d: number): number {
  for (let index = 1; index < knots.length; index++) {
    const [d0, r0] = knots[index - 1] as [number, number];
    const [d1, r1] = knots[index] as [number, number];
    if (d <= d1) return d1 > d0 ? r0 + ((r1 - r0) * (d - d0)) / (d1 - d0) : r1;
  }
  return knots.length ? (knots[knots.length - 1] as [number, number])[1] : 0;
}

export function positions(model: TreeModel): Float64Array {
  const xy = new Float64Array(2 * model.size);
  for (let node = 0; node < model.size; node++) {
    const rho = node === 0 ? 0 : radiusOf(model.data.knots, model.data.distance[node] as number);
    const theta = model.data.theta[node] as number;
    xy[2 * node] = rho * Math.cos(theta);
    xy[2 * node + 1] = -rho * Math.sin(theta);
  }
  return xy;
}

/** The disk's geodesic between two points: its circle's radius and sense, or a radius of 0 for a straight line. */
export function arc(x0: number, y0: number, x1: number, y1: number): { radius: number; sweep: 0 | 1 } {
  // the circle is orthogonal to the unit circle, so its centre m satisfies 2 m·p = 1 + |p|² for both ends
  const determinant = x0 * y1 - y0 * x1;
  if (Math.abs(determinant) < 1e-9) return { radius: 0, sweep: 0 };
  const a = (1 + x0 * x0 + y0 * y0) / 2;
  const b = (1 + x1 * x1 + y1 * y1) / 2;
  const cx = (a * y1 - b * y0) / determinant;
  const cy = (b * x0 - a * x1) / determinant;
  const radius = Math.sqrt(Math.max(cx * cx + cy * cy - 1, 0));
  const turn = (x0 - cx) * (y1 - y0) - (y0 - cy) * (x1 - x0);
  return { radius, sweep: turn > 0 ? 1 : 0 };
}

export function colorOf(model: TreeModel, moment: Moment, node: number, by: ColorBy, deepest: number): string {
  switch (by) {
    case "V":
      return viridis(model.potential(node));
    case "v":
      return viridis(model.value(node));
    case "difference": {
      const gap = model.difference(node);
      return diverging(gap === null ? null : Math.max(-1, Math.min(1, 2 * gap)));
    }
    case "prior":
      return viridis(model.data.prior[node] ?? null);
    case "depth":
      return viridis((model.data.depth[node] as number) / Math.max(1, deepest));
    case "visits":
      return viridis(Math.log1p(moment.visits[node] as number) / Math.log1p(Math.max(1, moment.visits[0] as number)));
  }
}

export function sizeOf(moment: Moment, node: number, by: SizeBy): number {
  const base = moment.size <= 80 ? 5.5 : moment.size <= 400 ? 4.4 : moment.size <= 3000 ? 3.2 : 2.2;
  if (by === "same") return base;
  return base * (0.6 + 1.6 * Math.sqrt((moment.visits[node] as number) / Math.max(1, moment.visits[0] as number)));
}

export function mark(kind: Kind, x: number, y: number, size: number): string {
  const corners = (count: number, turn: number, reach: (index: number) => number): string => {
    const points = Array.from({ length: count }, (_, index) => {
      const angle = (Math.PI / 180) * (turn + (360 * index) / count);
      return `${(x + reach(index) * Math.cos(angle)).toFixed(2)} ${(y + reach(index) * Math.sin(angle)).toFixed(2)}`;
    });
    return `M${points.join("L")}Z`;
  };
  switch (kind) {
    case "answered":
      return corners(4, 45, () => 1.35 * size);
    case "wrong":
      return corners(4, 0, () => 1.5 * size);
    case "ended":
      return corners(3, -90, () => 1.3 * size);
    case "correct":
      return corners(10, -90, (index) => (index % 2 === 0 ? 2 : 0.9) * size);
    default: {
      const r = size * (kind === "root" ? 1.4 : kind === "pruned" ? 0.8 : 1);
      return `M${(x - r).toFixed(2)} ${y.toFixed(2)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
    }
  }
}

const LAYER: Record<Kind, number> = { pruned: 0, open: 1, ended: 2, wrong: 3, answered: 3, root: 4, correct: 5 };

export interface Scene {
  model: TreeModel;
  moment: Moment;
  xy: Float64Array;
  visible: Uint8Array; // nodes that pass the filter; the others are faint
  selected: number;
  colorBy: ColorBy;
  sizeBy: SizeBy;
  theme: Theme;
  width: number;
  height: number;
  camera: Camera;
  labels: boolean;
}

export function diskSize(width: number, height: number): number {
  return Math.min(width, height) / 2 - 16;
}

/** Pixel position of a point of the unit disk. */
export function place(scene: Pick<Scene, "width" | "height" | "camera">, x: number, y: number): [number, number] {
  const radius = diskSize(scene.width, scene.height);
  const { camera } = scene;
  return [
    (scene.width / 2 + radius * x) * camera.k + camera.x,
    (scene.height / 2 + radius * y) * camera.k + camera.y,
  ];
}

export function draw(pen: Pen, scene: Scene): void {
  const { model, moment, xy, theme, camera } = scene;
  const radius = diskSize(scene.width, scene.height) * camera.k;
  const [cx, cy] = place(scene, 0, 0);
  pen.circle(cx, cy, radius, theme.disk, theme.line, 1.2);
  for (const distance of model.data.rings) {
    const ring = radius * radiusOf(model.data.knots, distance);
    pen.circle(cx, cy, ring, null, theme.line, 0.8);
  }
  const chosen = new Set(scene.selected >= 0 ? model.path(scene.selected) : []);
  const faint: string[] = [];
  const plain: string[] = [];
  const strong: string[] = [];
  const curved = moment.size <= 4000 || camera.k > 2;
  for (let node = 1; node < moment.size; node++) {
    const parent = model.data.parent[node] as number;
    const x0 = xy[2 * parent] as number;
    const y0 = xy[2 * parent + 1] as number;
    const x1 = xy[2 * node] as number;
    const y1 = xy[2 * node + 1] as number;
    const [px, py] = place(scene, x0, y0);
    const [qx, qy] = place(scene, x1, y1);
    if (Math.max(px, qx) < 0 || Math.min(px, qx) > scene.width || Math.max(py, qy) < 0 || Math.min(py, qy) > scene.height)
      continue;
    let line = `L${qx.toFixed(1)} ${qy.toFixed(1)}`;
    if (curved) {
      const found = arc(x0, y0, x1, y1);
      if (found.radius > 0 && found.radius < 50) {
        const r = (found.radius * radius).toFixed(1);
        line = `A${r} ${r} 0 0 ${found.sweep} ${qx.toFixed(1)} ${qy.toFixed(1)}`;
      }
    }
    const list = chosen.has(node) ? strong : scene.visible[node] && !moment.pruned[node] ? plain : faint;
    list.push(`M${px.toFixed(1)} ${py.toFixed(1)}${line}`);
  }
  const thin = moment.size > 3000 ? 0.5 : 1;
  pen.path(faint.join(""), null, theme.muted, thin, 0.18);
  pen.path(plain.join(""), null, theme.muted, thin, moment.size > 3000 ? 0.35 : 0.65);
  pen.path(strong.join(""), null, theme.accent, 2.6, 1);
  const deepest = model.data.depth.reduce((most, depth) => Math.max(most, depth), 0);
  const zoom = Math.min(2, Math.sqrt(camera.k));
  const layers: number[][] = [[], [], [], [], [], [], []];
  const kinds: Kind[] = [];
  for (let node = 0; node < moment.size; node++) {
    const kind = model.kind(node, moment);
    kinds.push(kind);
    (layers[node === model.data.chosen ? 6 : LAYER[kind]] as number[]).push(node);
  }
  for (const layer of layers) {
    for (const node of layer) {
      const [x, y] = place(scene, xy[2 * node] as number, xy[2 * node + 1] as number);
      if (x < -20 || y < -20 || x > scene.width + 20 || y > scene.height + 20) continue;
      const kind = kinds[node] as Kind;
      const size = sizeOf(moment, node, scene.sizeBy) * zoom;
      if (node === model.data.chosen) pen.circle(x, y, 2.3 * size, null, theme.accent, 2);
      if (node === scene.selected) pen.circle(x, y, 2.9 * size + 2, null, theme.ink, 2);
      const fill = kind === "pruned" ? theme.disk : colorOf(model, moment, node, scene.colorBy, deepest);
      const stroke = kind === "correct" ? theme.good : kind === "wrong" ? theme.bad : theme.ink;
      const opacity = scene.visible[node] ? 1 : 0.12;
      pen.path(mark(kind, x, y, size), fill, stroke, kind === "correct" || kind === "wrong" ? 1.4 : 0.7, opacity);
    }
  }
  if (scene.labels) {
    for (const distance of model.data.rings) {
      const rho = radiusOf(model.data.knots, distance);
      const [x, y] = place(scene, rho * Math.cos(Math.PI / 3), -rho * Math.sin(Math.PI / 3));
      pen.text(x + 3, y - 3, String(distance), theme.muted, 11);
    }
  }
}

/** The drawn node nearest to a pixel, within `reach` pixels, or −1. */
export function nearest(scene: Scene, x: number, y: number, reach = 14): number {
  let found = -1;
  let best = reach * reach;
  for (let node = 0; node < scene.moment.size; node++) {
    if (!scene.visible[node]) continue;
    const [px, py] = place(scene, scene.xy[2 * node] as number, scene.xy[2 * node + 1] as number);
    const distance = (px - x) ** 2 + (py - y) ** 2;
    if (distance < best) {
      best = distance;
      found = node;
    }
  }
  return found;
}

export function canvasPen(context: CanvasRenderingContext2D): Pen {
  return {
    circle(x, y, radius, fill, stroke, width) {
      context.beginPath();
      context.arc(x, y, Math.max(0, radius), 0, 2 * Math.PI);
      if (fill) {
        context.fillStyle = fill;
        context.fill();
      }
      if (stroke) {
        context.strokeStyle = stroke;
        context.lineWidth = width;
        context.stroke();
      }
    },
    path(points, fill, stroke, width, opacity) {
      if (!points) return;
      const shape = new Path2D(points);
      context.globalAlpha = opacity;
      if (fill) {
        context.fillStyle = fill;
        context.fill(shape);
      }
      if (stroke) {
        context.strokeStyle = stroke;
        context.lineWidth = width;
        context.stroke(shape);
      }
      context.globalAlpha = 1;
    },
    text(x, y, text, fill, size) {
      context.font = `${size}px system-ui, sans-serif`;
      context.fillStyle = fill;
      context.fillText(text, x, y);
    },
  };
}

export class SvgPen implements Pen {
  private readonly parts: string[] = [];

  circle(x: number, y: number, radius: number, fill: string | null, stroke: string | null, width: number): void {
    this.parts.push(
      `<circle cx="${x.toFixed(2)}" cy="${y.toFixed(2)}" r="${Math.max(0, radius).toFixed(2)}" fill="${fill ?? "none"}"` +
        (stroke ? ` stroke="${stroke}" stroke-width="${width}"` : "") +
        "/>",
    );
  }

  path(points: string, fill: string | null, stroke: string | null, width: number, opacity: number): void {
    if (!points) return;
    this.parts.push(
      `<path d="${points}" fill="${fill ?? "none"}" opacity="${opacity}"` +
        (stroke ? ` stroke="${stroke}" stroke-width="${width}"` : "") +
        "/>",
    );
  }

  text(x: number, y: number, text: string, fill: string, size: number): void {
    this.parts.push(
      `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" fill="${fill}" font-size="${size}" font-family="sans-serif">${text.replace(/[<&>]/g, "")}</text>`,
    );
  }

  document(width: number, height: number, background: string): string {
    return (
      `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">` +
      `<rect width="100%" height="100%" fill="${background}"/>${this.parts.join("")}</svg>`
    );
  }
}
