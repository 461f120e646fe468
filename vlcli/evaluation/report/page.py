"""Tables as one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from vlcli.evaluation.report.table import WITH, Number, Row, Table

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8883; }
body { font: 15px/1.45 system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif; margin: 2rem auto; max-width: 90rem;
  padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { text-align: right; cursor: pointer; font-weight: 600; white-space: nowrap; }
th:hover, tbody tr:hover { background: var(--soft); }
th[aria-sort=ascending]::after { content: " ▲"; } th[aria-sort=descending]::after { content: " ▼"; }
td { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th:not(.name) { white-space: normal; max-width: 15rem; }
th.name, td.name { text-align: left; } td.name { white-space: normal; }
td small { display: block; opacity: .65; } td.best { font-weight: 700; } td.best small { font-weight: 400; }
code { font-size: .85em; } p { opacity: .75; max-width: 60rem; }
"""
SCRIPT = """
for (const head of document.querySelectorAll("th")) {
  const sort = () => {
    const table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
    const down = head.getAttribute("aria-sort") !== "descending" && !head.classList.contains("name")
      || head.getAttribute("aria-sort") === "ascending";
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const rows = [...body.rows].sort((a, b) => {
      const x = key(a), y = key(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = head.classList.contains("name") ? x.localeCompare(y) : x - y;
      return down ? -order : order;
    });
    body.append(...rows);
  };
  head.tabIndex = 0;
  head.addEventListener("click", sort);
  head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
}
"""


def html(tables: Sequence[Table], *, title: str) -> str:
    """A page: a table each, to be sorted by a click on a column's head. Numbers have their interval below them."""
    body = "".join(map(_table, tables))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n"
        "<p>In brackets the 95 % bootstrap interval; ± is the standard deviation over seeds. The best of a column is"
        " bold. A click on a column's head sorts by it.</p>\n"
        f"{body}<script>{SCRIPT}</script>\n</body></html>\n"
    )


def _table(table: Table) -> str:
    names = "".join(f'<th class="name" scope="col">{escape(name)}</th>' for name in ("model", *WITH))
    heads = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    rows = "".join(_row(table, row) for row in table.rows)
    note = f"<p>{escape(table.note)}</p>\n" if table.note else ""
    return (
        f'<h2>{escape(table.title)}</h2>\n<div class="wide"><table><thead><tr>{names}{heads}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>\n{note}"
    )


def _row(table: Table, row: Row) -> str:
    checkpoint, *said = row.said
    words = [escape(row.model), f"<code>{escape(checkpoint)}</code>", *map(escape, said)]
    names = "".join(f'<td class="name">{word}</td>' for word in words)
    cells = "".join(_cell(one, best=table.is_best(row, column)) for column, one in enumerate(row.numbers))
    return f"<tr>{names}{cells}</tr>\n"


def _cell(number: Number | None, *, best: bool) -> str:
    if number is None:
        return '<td data-value="">–</td>'
    shown, _, rest = str(number).partition(" ")
    below = f"<small>{escape(rest)}</small>" if rest else ""
    kind = ' class="best"' if best else ""
    return f'<td{kind} data-value="{number.mean:.4f}">{shown}{below}</td>'
