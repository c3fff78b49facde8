// The page: a heading, tabs for what it holds, and the tab that is open.
import { render, type JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Compare } from "./compare";
import { blob, element, type Manifest } from "./data";
import { ProblemsView } from "./problems/table";
import { go, useRoute } from "./route";
import { Overview } from "./sections";
import "./style.css";
import { Text } from "./text";
import { Training } from "./training";
import { TreeView } from "./tree/view";

const root = element("app");

interface Tab {
  key: string;
  words: string;
}

export function tabsOf(manifest: Manifest): Tab[] {
  const tabs: Tab[] = [];
  if (manifest.sections.length || manifest.facts.length) tabs.push({ key: "overview", words: "Overview" });
  if (manifest.runs.length) tabs.push({ key: "problems", words: "Problems" });
  if (manifest.trees.length) tabs.push({ key: "tree", words: manifest.trees.length > 1 ? "Trees" : "Tree" });
  if (manifest.training.length) tabs.push({ key: "training", words: "Training" });
  if (manifest.runs.length > 1) tabs.push({ key: "compare", words: "Compare" });
  return tabs;
}

const SCHEMES = ["auto", "light", "dark"] as const;

function Scheme(): JSX.Element {
  const [scheme, setScheme] = useState<(typeof SCHEMES)[number]>("auto");
  useEffect(() => {
    if (scheme === "auto") delete document.documentElement.dataset["scheme"];
    else document.documentElement.dataset["scheme"] = scheme;
    dispatchEvent(new Event("lapha-scheme"));
  }, [scheme]);
  return (
    <label class="scheme">
      Colors{" "}
      <select value={scheme} onChange={(event) => setScheme(event.currentTarget.value as typeof scheme)}>
        {SCHEMES.map((name) => (
          <option key={name} value={name}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
}

function App({ manifest }: { manifest: Manifest }): JSX.Element {
  const route = useRoute();
  const tabs = tabsOf(manifest);
  const wanted = route["tab"] ?? (route["n"] !== undefined || route["t"] !== undefined ? "tree" : route["p"] !== undefined ? "problems" : tabs[0]?.key);
  const open = tabs.find((tab) => tab.key === wanted) ?? tabs[0];
  const wide = open?.key === "tree" || open?.key === "problems" || open?.key === "compare";
  useEffect(() => {
    if (root) root.className = wide ? "fill" : "";
  }, [wide]);
  useEffect(() => {
    const keys = (event: KeyboardEvent): void => {
      if (event.key !== "/" || /^(INPUT|SELECT|TEXTAREA)$/.test((event.target as HTMLElement).tagName)) return;
      const field = element("search");
      if (field) {
        event.preventDefault();
        field.focus();
      }
    };
    addEventListener("keydown", keys);
    return () => removeEventListener("keydown", keys);
  }, []);
  return (
    <>
      <header class="top">
        <div>
          <h1>
            <Text text={manifest.title} />
          </h1>
          {manifest.subtitle && (
            <p class="subtitle">
              <Text text={manifest.subtitle} />
            </p>
          )}
        </div>
        <Scheme />
      </header>
      {tabs.length > 1 && (
        <nav class="tabs" aria-label="Views">
          {tabs.map((tab) => (
            <a
              key={tab.key}
              href={`#tab=${tab.key}`}
              aria-current={tab.key === open?.key ? "page" : undefined}
              onClick={(event) => {
                event.preventDefault();
                go({ tab: tab.key, p: null }, true);
              }}
            >
              {tab.words}
            </a>
          ))}
        </nav>
      )}
      <main class={wide ? "wide" : ""}>
        {open?.key === "overview" && <Overview manifest={manifest} />}
        {open?.key === "problems" && <ProblemsView manifest={manifest} />}
        {open?.key === "tree" && <TreeView trees={manifest.trees} />}
        {open?.key === "training" && <Training manifest={manifest} />}
        {open?.key === "compare" && <Compare manifest={manifest} />}
        {!open && <p>This page holds nothing to show.</p>}
      </main>
      {manifest.footer && <footer>{manifest.footer}</footer>}
    </>
  );
}

if (root) {
  blob<Manifest>("manifest")
    .then((manifest) => {
      render(<App manifest={manifest} />, root);
      root.dataset["ready"] = "yes";
    })
    .catch((error: unknown) => {
      root.textContent = `This page cannot be read: ${String(error)}`;
    });
}
