// Viridis (CC0), which stays ordered for color-blind readers and in gray print; a diverging scale for differences.
const VIRIDIS = [
  "#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c", "#22a884", "#44bf70", "#7ad151", "#bddf26", "#fde725",
];
const DIVERGING = ["#b2182b", "#d6604d", "#f4a582", "#d9d9d9", "#92c5de", "#4393c3", "#2166ac"];
export const UNKNOWN = "#9aa4af";
export const SERIES_LIGHT = ["#33508f", "#d1661c", "#12806f", "#8d3a94", "#6b7683", "#a8231f"];
export const SERIES_DARK = ["#8fb0ff", "#ffa366", "#5fd0bd", "#d79be0", "#b6c0cb", "#ff8f8a"];

function channels(color: string): [number, number, number] {
  const value = parseInt(color.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

function along(scale: string[], fraction: number): string {
  const place = Math.min(Math.max(fraction, 0), 1) * (scale.length - 1);
  const low = Math.min(Math.floor(place), scale.length - 2);
  const a = channels(scale[low] as string);
  const b = channels(scale[low + 1] as string);
  const mixed = a.map((part, index) => Math.round(part + (place - low) * ((b[index] as number) - part)));
  return `rgb(${mixed.join(",")})`;
}

const TABLE = Array.from({ length: 256 }, (_, index) => along(VIRIDIS, index / 255));

export function viridis(fraction: number | null): string {
  if (fraction === null || !Number.isFinite(fraction)) return UNKNOWN;
  return TABLE[Math.round(Math.min(Math.max(fraction, 0), 1) * 255)] as string;
}

/** −1 is red, 0 gray, 1 blue. */
export function diverging(value: number | null): string {
  if (value === null || !Number.isFinite(value)) return UNKNOWN;
  return along(DIVERGING, (value + 1) / 2);
}
