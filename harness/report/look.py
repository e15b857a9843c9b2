"""How the page looks, light, dark and on a phone, and the script that sorts its tables."""

CSS = """
:root { color-scheme: light dark; --ink: #1d1f21; --paper: #ffffff; --soft: #5b6168; --line: #d9dde1;
  --card: #f5f7f9; --accent: #0063a3; --warn: #fff6e3; --warn-line: #e0a526; --shadow: #00000030;
  --figure-ink: var(--ink); --figure-guide: var(--soft); --figure-ground: var(--paper); }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --paper: #15181b; --soft: #a2a9b0; --line: #363c42; --card: #1e2327;
    --accent: #6cb8ee; --warn: #2b2413; --warn-line: #b98a26; --shadow: #000000c0;
    --figure-blue: #4ba3dc; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 92rem; padding: 2rem 1.25rem 4rem; background: var(--paper);
  color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
a { color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 2px; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 0.5rem; overflow-wrap: anywhere; }
h1 em { font-size: 1rem; font-style: italic; font-weight: 600; color: var(--ink); background: var(--warn);
  border: 1px solid var(--warn-line); border-radius: 1rem; padding: 0.1rem 0.7rem; vertical-align: middle;
  white-space: nowrap; }
header { margin-bottom: 1rem; }
header .note { margin: 0.2rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 0 0 0.6rem; }
h2 a { color: inherit; text-decoration: none; }
h2 a:hover { text-decoration: underline; }
h2 span, nav span { color: var(--soft); font-weight: 400; font-variant-numeric: tabular-nums; }
h2 span { margin-right: 0.35rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 0.4rem; }
p { margin: 0.5rem 0; max-width: 50rem; overflow-wrap: break-word; }
main > section { margin: 0 0 2.6rem; }
.flow { color: var(--soft); }
.headline { background: var(--card); border-left: 4px solid var(--accent); border-radius: 0 8px 8px 0;
  padding: 1rem 1.25rem; }
.headline .label { color: var(--soft); margin: 0; }
.headline .big { font-size: 2.6rem; font-weight: 700; line-height: 1.2; margin: 0; color: var(--accent); }
.headline ul { margin: 0.5rem 0 0; padding-left: 1.2rem; color: var(--soft); }
.warnings { background: var(--warn); border: 1px solid var(--warn-line); border-radius: 8px;
  padding: 0.9rem 1.25rem 0.7rem; }
ul { padding-left: 1.2rem; margin: 0.5rem 0; max-width: 50rem; overflow-wrap: break-word; }
.warnings ul { margin: 0; }
.absent { color: var(--soft); }
.table, .drawing { overflow-x: auto; }
.table { margin: 0.8rem 0; position: relative; }
/* a shadow at the edge beyond which there is more: the covers scroll along, the shadows stay */
.table, .drawing { background:
  linear-gradient(to right, var(--paper) 40%, transparent) left / 3rem 100% no-repeat local,
  linear-gradient(to left, var(--paper) 40%, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to right, var(--shadow), transparent) left / 1rem 100% no-repeat scroll,
  linear-gradient(to left, var(--shadow), transparent) right / 1rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: 0.86rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.3rem 1rem 0.3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
tbody th, tfoot th { font-weight: 400; white-space: nowrap; }
tfoot th, tfoot td { font-weight: 600; border-bottom: 0; }
.facts th { color: var(--soft); white-space: nowrap; }
.whole { white-space: nowrap; }
thead th, thead td { vertical-align: bottom; }
thead button { all: unset; cursor: pointer; color: var(--soft); font-weight: 600; }
thead button:hover { color: var(--ink); }
thead button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
thead button::after { content: "\\00a0\\2195"; opacity: 0.35; }
[aria-sort="ascending"] button::after { content: "\\00a0\\2191"; opacity: 1; }
[aria-sort="descending"] button::after { content: "\\00a0\\2193"; opacity: 1; }
figure { margin: 1.2rem 0; }
figure svg { display: block; max-width: 100%; height: auto; }
/* the figure's own ground, which is the page's, would hide the shadow */
.drawing svg > g > g:first-child > path { fill-opacity: 0; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap; }
figcaption { color: var(--soft); font-size: 0.86rem; margin-top: 0.4rem; max-width: 50rem; }
figcaption span { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 0.78rem;
  display: block; overflow-wrap: anywhere; }
.film { display: inline-block; margin: 0.5rem 1rem 0.5rem 0; max-width: 100%; }
.film img, .film video { display: block; max-width: 100%; height: auto; border-radius: 8px; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 0.88em;
  overflow-wrap: anywhere; }
pre { background: var(--card); border-radius: 6px; padding: 0.7rem 1rem; white-space: pre-wrap; }
summary { cursor: pointer; margin: 0.6rem 0; }
nav { background: var(--card); border-radius: 8px; padding: 0.8rem 1.1rem; margin: 0 0 1.6rem;
  font-size: 0.9rem; }
nav h2 { font-size: 0.9rem; margin: 0 0 0.3rem; }
nav ol { list-style: none; margin: 0; padding: 0; columns: 10rem; column-gap: 1.5rem; }
nav li { break-inside: avoid; padding: 0.12rem 0; }
nav a { display: flex; gap: 0.5rem; text-decoration: none; color: inherit; }
nav a:hover { color: var(--accent); text-decoration: underline; }
nav a span { flex: none; width: 1.2rem; text-align: right; }
@media (min-width: 75rem) {
  body { display: grid; grid-template-columns: 15rem minmax(0, 1fr); column-gap: 3rem;
    align-items: start; }
  header { grid-column: 1 / -1; }
  nav { position: sticky; top: 1rem; max-height: calc(100vh - 2rem); overflow-y: auto; }
  nav ol { columns: auto; } }
@media (max-width: 40rem) {
  body { padding: 1.2rem 1rem 3rem; }
  h1 { font-size: 1.35rem; }
  figure svg { min-width: 36rem; }
  tbody th, tfoot th { white-space: normal; min-width: 7rem; }
  .headline .big { font-size: 2.1rem; } }
@media print { nav { display: none; } .table { overflow: visible; } }
"""

# Sorting is stable, by data-value where a cell has one (empty: no number, always last), else by text.
SCRIPT = """
"use strict";
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.querySelectorAll("[aria-sort]")) {
      other.setAttribute("aria-sort", "none");
    }
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const sign = down ? -1 : 1;
    const keys = new Map();
    for (const row of body.rows) {
      const cell = row.cells[head.cellIndex];
      const value = cell.dataset.value;
      keys.set(row, value === undefined ? cell.textContent : value === "" ? NaN : Number(value));
    }
    const compare = (a, b) => {
      if (typeof a === "string" || typeof b === "string") {
        return sign * String(a).localeCompare(String(b), "en", { numeric: true });
      }
      if (Number.isNaN(a) || Number.isNaN(b)) { return Number.isNaN(a) - Number.isNaN(b); }
      return sign * (a - b);
    };
    const rows = [...body.rows].sort((a, b) => compare(keys.get(a), keys.get(b)));
    body.append(...rows);
  });
}
"""
