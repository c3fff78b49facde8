// The page's place is in the address: #tab=tree&t=3&n=17&s=12. A link to it opens the same picture.
import { useEffect, useState } from "preact/hooks";

export type Route = Record<string, string>;

export function parse(hash: string): Route {
  return Object.fromEntries(new URLSearchParams(hash.replace(/^#/, "")));
}

export function format(route: Route): string {
  const text = new URLSearchParams(Object.entries(route).filter(([, value]) => value !== "")).toString();
  return text ? `#${text}` : "#";
}

let current: Route = typeof location === "undefined" ? {} : parse(location.hash);
const listeners = new Set<() => void>();

function publish(): void {
  for (const listener of listeners) listener();
}

if (typeof addEventListener !== "undefined") {
  addEventListener("hashchange", () => {
    current = parse(location.hash);
    publish();
  });
}

/** Change parts of the address; `null` removes one. `push` makes an entry for the browser's back button. */
export function go(patch: Record<string, string | number | null>, push = false): void {
  const next: Route = { ...current };
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete next[name];
    else next[name] = String(value);
  }
  current = next;
  const address = format(next);
  if (push) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
  publish();
}

if (typeof addEventListener !== "undefined") {
  addEventListener("popstate", () => {
    current = parse(location.hash);
    publish();
  });
}

export function useRoute(): Route {
  const [, force] = useState(0);
  useEffect(() => {
    const listener = () => force((count) => count + 1);
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }, []);
  return current;
}
