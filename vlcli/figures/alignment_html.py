"""Alignments as the sections of an HTML file: the panels of a PNG, with the tokens as text that points at patches."""

from __future__ import annotations

import html
from collections.abc import Sequence

from vlcli.figures.alignment import groups
from vlcli.figures.cells import number
from vlcli.figures.html import img, words
from vlcli.figures.panels import Row, grid_title, heat_title, limits_of, overlay, ticks, token_title

NUMBERS = "0123456789−."


def sections(rows: Sequence[Row], *, layout: str = "rows") -> tuple[list[str], list[str]]:
    """The HTML of each group of `rows`, and every text in it."""
    limits, texts = limits_of(rows), [NUMBERS]
    found = []
    for group in groups(rows):
        if layout == "sheet":
            found.append(_cell(group, limits, texts))
        else:
            found.append(_panels(group, limits, texts))
    return found, texts


def _cell(group: Sequence[Row], limits: dict[int, tuple[float, float]], texts: list[str]) -> str:
    first = group[0]
    under = ", ".join(number(row) for row in group)
    half = first.pixels[::2, ::2]  # a cell is small
    panels = [_figure("", img(half, first.title))]
    panels += [
        _figure("", img(overlay(row.pixels[::2, ::2], row.alignment.similarity, limits[row.model])))
        for row in group
    ]
    texts += [first.title, under]
    return (
        f'<div class="panels">{"".join(panels)}</div>{words(first.title, tag="div", lang=first.language)}'
        + words(under, tag="div", kind="faint")
    )


def _panels(group: Sequence[Row], limits: dict[int, tuple[float, float]], texts: list[str]) -> str:
    first = group[0]

    def figure(title: str, inside: str, lang: str | None = None) -> str:
        texts.append(title)
        return _figure(words(title, lang=lang), inside)

    panels, lists = [figure(first.title, img(first.pixels, first.title), first.language)], []
    for row in group:
        found, name = row.alignment, f"{row.name}: " if row.name else ""
        if found.index is not None:
            title = name + grid_title(found)
            panels.append(figure(title, img(row.pixels, title) + _grid(row)))
            lists.append((row, name))
        maps = [(name + heat_title(found, 60), found.similarity)]
        maps += [(token_title(found, part), shown) for part, shown in enumerate(found.parts)]
        for title, shown in maps:
            inside = img(overlay(row.pixels, shown, limits[row.model]), title)
            panels.append(figure(title, inside, row.language))
        numbers = "".join(f"<span>{text}</span>" for _, text in reversed(ticks(limits[row.model])))
        panels.append(f'<div class="scale"><i></i><span>{numbers}</span></div>')
    body = f'<div class="panels">{"".join(panels)}</div>'
    for row, name in lists:
        body += _tokens(row, name, texts)
    return body


def _figure(caption: str, inside: str) -> str:
    return f"<figure>{caption}<div>{inside}</div></figure>"


def _grid(row: Row) -> str:
    found = row.alignment
    assert found.index is not None
    h, w = found.index.shape
    cells = []
    for r in range(h):
        for c in range(w):
            token, kind = int(found.index[r, c]), "on" if found.on_label[r, c] else "off"
            cells.append(
                f'<g class="{kind}" data-m="{row.model}" data-t="{token}"><rect x="{c}" y="{r}" width="1" height="1"/>'
                f'<text x="{c + 0.5}" y="{r + 0.5}" font-size=".42">{token}</text></g>'
            )
    # what is marked is drawn last, or its neighbours' shades cover half of its frame
    cells.sort(key=lambda cell: cell.startswith('<g class="on"'))
    return f'<svg viewBox="0 0 {w} {h}" preserveAspectRatio="none">{"".join(cells)}</svg>'


def _tokens(row: Row, name: str, texts: list[str]) -> str:
    items = []
    for place, token in enumerate(row.alignment.text.tokens):
        on = ' class="on"' if place in row.alignment.text.positions else ""
        items.append(
            f'<li{on} data-m="{row.model}" data-t="{place}">{place} <bdi>{html.escape(token)}</bdi></li>'
        )
        texts.append(token)
    lang = f' lang="{html.escape(row.language, quote=True)}"' if row.language else ""
    head = f"<li>{html.escape(name)}</li>" if name else ""
    return f'<ol class="tokens"{lang}>{head}{"".join(items)}</ol>'
