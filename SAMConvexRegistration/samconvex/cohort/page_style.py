"""What index.html looks like and how its table is sorted and filtered; no file of anybody else, no network."""

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f27; --soft: #5a6270; --line: #dde1e8; --band: #f4f6f9;
  --link: #0b57b0; --failed: #8e1b1b; --reject: #b3261e; --check: #7a5200; --good: #14663a; --waiting: #5a6270; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15171c; --ink: #e8eaee; --soft: #a3aab8; --line: #2c313b; --band: #1d2027; --link: #8ab8ff;
    --failed: #ff8a80; --reject: #ff8a80; --check: #ffcd50; --good: #78d696; --waiting: #a3aab8; }
}
* { box-sizing: border-box; }
body { display: flex; flex-direction: column; height: 100vh; margin: 0; background: var(--paper); color: var(--ink);
  font: 14px/1.45 system-ui, "DejaVu Sans", sans-serif; }
header { padding: 18px 24px; }
main { flex: 1; min-height: 240px; }
h1 { margin: 0 0 2px; font-size: 22px; }
p { margin: 0; color: var(--soft); }
a { color: var(--link); }
.tools { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; margin-top: 14px; }
.tools input { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--line);
  border-radius: 8px; padding: 6px 10px; width: 260px; }
.tools button { font: inherit; color: inherit; background: var(--band); border: 1px solid var(--line);
  border-radius: 99px; padding: 5px 12px; cursor: pointer; }
.tools button[aria-pressed="true"] { border-color: currentColor; font-weight: 600; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.frame { height: 100%; overflow: auto; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; padding: 0 24px 8px; color: var(--soft); }
thead th { position: sticky; top: 0; background: var(--band); border-bottom: 1px solid var(--line); z-index: 1; }
th, td { padding: 8px 10px; text-align: left; vertical-align: top; }
thead th { vertical-align: bottom; }
th:first-child, td:first-child { padding-left: 24px; }
thead button { all: unset; cursor: pointer; font-weight: 600; }
thead th.n button { max-width: 84px; white-space: normal; }
thead button:focus-visible { outline: 2px solid var(--link); }
thead th[aria-sort="ascending"] button::after { content: " \\2191"; }
thead th[aria-sort="descending"] button::after { content: " \\2193"; }
tbody tr { border-bottom: 1px solid var(--line); }
tbody tr:hover { background: var(--band); }
tbody th { font-weight: 600; min-width: 120px; overflow-wrap: anywhere; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.why { min-width: 260px; max-width: 440px; }
td.why p + p { margin-top: 4px; }
td img { display: block; border-radius: 6px; }
.state { font-weight: 700; white-space: nowrap; }
.failed { color: var(--failed); } .reject { color: var(--reject); } .check { color: var(--check); }
.good { color: var(--good); } .done { color: var(--ink); } .waiting { color: var(--waiting); }
@media print { body { display: block; height: auto; } .tools { display: none; } thead th { position: static; } }
"""

# The address keeps what is shown, so that it can be sent to a colleague: #q=liver&s=check&by=seconds&down=1
SCRIPT = """
"use strict";
const body = document.querySelector("tbody"), rows = [...body.rows], words = document.getElementById("words");
const chips = [...document.querySelectorAll("[data-state]")], heads = [...document.querySelectorAll("[data-by]")];
const shown = document.getElementById("shown"), kept = new URLSearchParams(location.hash.slice(1));
const chosen = new Set((kept.get("s") || "").split(",").filter(Boolean));
let by = kept.get("by") || "", down = kept.get("down") === "1";
words.value = kept.get("q") || "";
rows.forEach((row, order) => { row.order = order; row.words = row.textContent.toLowerCase(); });
function figure(row, column) {
  const cell = row.cells[column];
  const number = "v" in cell.dataset ? cell.dataset.v : null;
  return number === null ? cell.textContent.trim().toLowerCase() : number === "" ? null : Number(number);
}
function compare(column) {
  return (a, b) => {
    const x = figure(a, column), y = figure(b, column), sign = down ? -1 : 1;
    if (x === null || x === "" || y === null || y === "") return (x === null || x === "") - (y === null || y === "");
    return sign * (typeof x === "number" ? x - y : x.localeCompare(y, undefined, {numeric: true})) || a.order - b.order;
  };
}
function sort() {
  const column = heads.findIndex(head => head.dataset.by === by);
  const sorted = [...rows].sort(column < 0 ? (a, b) => a.order - b.order : compare(column));
  heads.forEach((head, index) => {
    if (index === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
  body.append(...sorted);
}
function filter() {
  const wanted = words.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let count = 0;
  for (const row of rows) {
    row.hidden = (chosen.size > 0 && !chosen.has(row.dataset.is)) || !wanted.every(word => row.words.includes(word));
    count += !row.hidden;
  }
  chips.forEach(chip => chip.setAttribute("aria-pressed", chosen.has(chip.dataset.state)));
  shown.textContent = count + " of " + rows.length + " rows";
}
function keep() {
  const now = new URLSearchParams();
  if (words.value) now.set("q", words.value);
  if (chosen.size) now.set("s", [...chosen].join(","));
  if (by) { now.set("by", by); if (down) now.set("down", "1"); }
  history.replaceState(null, "", "#" + now);
}
words.addEventListener("input", () => { filter(); keep(); });
chips.forEach(chip => chip.addEventListener("click", () => {
  if (!chosen.delete(chip.dataset.state)) chosen.add(chip.dataset.state);
  filter(); keep();
}));
heads.forEach(head => head.addEventListener("click", () => {
  const again = head.dataset.by === by;
  if (again && down) { by = ""; down = false; } else { down = again; by = head.dataset.by; }
  sort(); keep();
}));
if (by) sort();
filter();
"""
