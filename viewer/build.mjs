// Bundles src/ into the two files that the Python package ships, with the licences of what is bundled.
// The first line holds a digest of the sources: a test compares it with the sources beside it.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";

const out = new URL("../src/lapha/viz/assets/", import.meta.url).pathname;
const root = new URL(".", import.meta.url).pathname;

function files(folder) {
  return readdirSync(folder)
    .sort()
    .flatMap((name) => (statSync(join(folder, name)).isDirectory() ? files(join(folder, name)) : [join(folder, name)]));
}

const digest = createHash("sha256");
for (const path of [...files(join(root, "src")), join(root, "package.json"), join(root, "build.mjs")]) {
  digest.update(relative(root, path) + "\0").update(readFileSync(path)).update("\0");
}
const mark = `/* lapha viewer, sources ${digest.digest("hex").slice(0, 16)} */\n`;

const result = await build({
  entryPoints: [join(root, "src/main.tsx")],
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  metafile: true,
  write: false,
  outdir: out,
  loader: { ".css": "css" },
});
for (const file of result.outputFiles) {
  const name = file.path.endsWith(".css") ? "viewer.css" : "viewer.js";
  // "</script" must not occur in an inline script
  writeFileSync(join(out, name), mark + file.text.replaceAll("</script", "<\\/script"));
}
const packages = new Set(
  Object.keys(result.metafile.inputs)
    .map((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1])
    .filter(Boolean),
);
let licences = "viewer.js contains these libraries.\n";
for (const name of [...packages].sort()) {
  const folder = join(root, "node_modules", name);
  const version = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).version;
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  licences += `\n${"=".repeat(60)}\n${name} ${version}\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`;
}
writeFileSync(join(out, "viewer-licenses.txt"), licences);
