// Curves, scatter plots and calibration as SVG that follows the page's colors.
import { extent } from "d3-array";
import { scaleLinear, scaleLog } from "d3-scale";
import { area, line } from "d3-shape";
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { Chart, Series } from "./data";
import { percent } from "./text";

const WIDTH = 520;
const HEIGHT = 320;
const LEFT = 58;
const BOTTOM = 44;
const TOP = 12;
const RIGHT = 14;

interface Point {
  x: number;
  y: number;
  low: number | null;
  high: number | null;
  size: number;
}

export function pointsOf(series: Series, log: boolean): Point[] {
  return series.x.flatMap((x, index) => {
    const y = series.y[index];
    if (y === null || y === undefined || (log && x <= 0)) return [];
    return [{ x, y, low: series.low?.[index] ?? null, high: series.high?.[index] ?? null, size: series.size?.[index] ?? 1 }];
  });
}

function short(value: number): string {
  if (value !== 0 && (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3)) return value.toExponential(0);
  return String(Number(value.toPrecision(4)));
}

export function Plot({ chart }: { chart: Chart }): JSX.Element {
  const [hover, setHover] = useState<string | null>(null);
  const shown = chart.series.map((series) => pointsOf(series, chart.log)).map((points) => points);
  const all = shown.flat();
  if (!all.length) return <p>Nothing to draw.</p>;
  const [x0, x1] = chart.unit ? [0, 1] : (extent(all, (point) => point.x) as [number, number]);
  const ys = all.flatMap((point) => [point.y, ...(point.low === null ? [] : [point.low]), ...(point.high === null ? [] : [point.high])]);
  const [y0, y1] = chart.unit || chart.percent ? [0, Math.max(1, ...(chart.percent ? [1] : []))] : (extent(ys) as [number, number]);
  const makeX = chart.log ? scaleLog().base(2) : scaleLinear();
  const x = makeX.domain(x0 === x1 ? (chart.log ? [x0 / 2, x0 * 2] : [x0 - 1, x0 + 1]) : [x0, x1]).range([LEFT, WIDTH - RIGHT]);
  const y = scaleLinear()
    .domain(y0 === y1 ? [y0 - 1, y0 + 1] : [y0, y1])
    .range([HEIGHT - BOTTOM, TOP])
    .nice(5);
  const xTicks = x.ticks(6).filter((_, index, list) => list.length <= 8 || index % Math.ceil(list.length / 8) === 0);
  const yTicks = y.ticks(5);
  const path = line<Point>()
    .x((point) => x(point.x))
    .y((point) => y(point.y));
  const band = area<Point>()
    .x((point) => x(point.x))
    .y0((point) => y(point.low ?? point.y))
    .y1((point) => y(point.high ?? point.y));
  const largest = Math.max(1, ...all.map((point) => point.size));
  const words = `${chart.ylabel} against ${chart.xlabel}: ${chart.series.map((series) => series.name).join(", ")}`;
  return (
    <figure class="chart">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={words}>
        {yTicks.map((tick) => (
          <g key={`y${tick}`}>
            <line class="grid" x1={LEFT} x2={WIDTH - RIGHT} y1={y(tick)} y2={y(tick)} />
            <text class="tick" x={LEFT - 8} y={y(tick) + 4} text-anchor="end">
              {chart.percent ? `${Math.round(100 * tick)} %` : short(tick)}
            </text>
          </g>
        ))}
        {xTicks.map((tick) => (
          <text key={`x${tick}`} class="tick" x={x(tick)} y={HEIGHT - BOTTOM + 18} text-anchor="middle">
            {short(tick)}
          </text>
        ))}
        <text class="axis" x={(LEFT + WIDTH) / 2} y={HEIGHT - 6} text-anchor="middle">
          {chart.xlabel}
        </text>
        <text class="axis" transform={`translate(14 ${(HEIGHT - BOTTOM) / 2}) rotate(-90)`} text-anchor="middle">
          {chart.ylabel}
        </text>
        {chart.diagonal && <line class="diagonal" x1={x(0)} y1={y(0)} x2={x(1)} y2={y(1)} />}
        {shown.map((points, index) => {
          const name = (chart.series[index] as Series).name;
          const tone = `series-${index % 6}${hover !== null && hover !== name ? " dim" : ""}`;
          const banded = points.length > 1 && points.some((point) => point.low !== null);
          return (
            <g key={name} class={tone}>
              {chart.mark === "line" && banded && <path class="band" d={band(points) ?? ""} />}
              {chart.mark === "line" && points.length > 1 && <path class="line" d={path(points) ?? ""} />}
              {(chart.mark !== "line" || points.length <= 40) &&
                points.map((point, at) => (
                  <g key={at}>
                    {point.low !== null && point.high !== null && (points.length === 1 || chart.mark === "calibration") && (
                      <line class="bar" x1={x(point.x)} x2={x(point.x)} y1={y(point.low)} y2={y(point.high)} />
                    )}
                    <circle
                      class={chart.mark === "point" ? "dot faint" : "dot"}
                      cx={x(point.x)}
                      cy={y(point.y)}
                      r={chart.mark === "calibration" ? 3 + 9 * Math.sqrt(point.size / largest) : chart.mark === "point" ? 2.4 : 3.4}
                    >
                      <title>
                        {name}: {short(point.x)}, {chart.percent ? percent(point.y) : short(point.y)}
                      </title>
                    </circle>
                  </g>
                ))}
            </g>
          );
        })}
      </svg>
      {chart.series.length > 1 && (
        <div class="keys">
          {chart.series.map((series, index) => (
            <span
              key={series.name}
              class={`key series-${index % 6}`}
              onMouseEnter={() => setHover(series.name)}
              onMouseLeave={() => setHover(null)}
            >
              <i aria-hidden="true" /> {series.name}
            </span>
          ))}
        </div>
      )}
      {chart.caption && <figcaption>{chart.caption}</figcaption>}
    </figure>
  );
}
