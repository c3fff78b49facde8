// What a report says: facts, tables, charts.
import type { JSX } from "preact";
import { Plot } from "./chart";
import type { Manifest, Section, Table } from "./data";
import { Text } from "./text";

export function DataTable({ table }: { table: Table }): JSX.Element {
  const strong = new Set(table.emphasized);
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={table.caption || table.columns.join(", ")}>
      <table>
        <thead>
          <tr>
            {table.columns.map((column, index) => (column ? <th key={index} scope="col">{column}</th> : <td key={index} />))}
          </tr>
        </thead>
        <tbody>
          {table.rows.map((row, index) => (
            <tr key={index} class={strong.has(index) ? "strong" : ""}>
              {row.map((cell, column) => (
                <td key={column} class={column > 0 && /^[−+\-\d–]/.test(String(cell)) ? "right" : ""}>
                  <Text text={cell === null ? "–" : String(cell)} />
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      {table.caption && <p class="caption">{table.caption}</p>}
    </div>
  );
}

function Block({ section }: { section: Section }): JSX.Element {
  const charts = section.items.filter((item) => item.kind === "chart");
  return (
    <section class="card">
      {section.heading && <h2>{section.heading}</h2>}
      {section.text && <p class="lead">{section.text}</p>}
      {section.items.map((item, index) => (item.kind === "table" ? <DataTable key={index} table={item} /> : null))}
      {charts.length > 0 && (
        <div class="charts">
          {charts.map((chart, index) => (
            <Plot key={index} chart={chart} />
          ))}
        </div>
      )}
    </section>
  );
}

export function Overview({ manifest }: { manifest: Manifest }): JSX.Element {
  return (
    <>
      {manifest.facts.length > 0 && (
        <dl class="facts-row">
          {manifest.facts.map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>
                <Text text={value} />
              </dd>
            </div>
          ))}
        </dl>
      )}
      {manifest.sections.map((section, index) => (
        <Block key={index} section={section} />
      ))}
    </>
  );
}
