"""One HTML file that needs nothing else: fonts, pictures, their own bytes and the JSON it is drawn from are inside.

It fetches nothing (its content policy forbids it), pages by keyboard, and can be redrawn: `embedded` gives back the
JSON and the pictures.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from vlcli.figures.fonts import Fonts, find_fonts
from vlcli.figures.webfont import font_css

DATA, PICTURES = "vlcli-figure", "vlcli-pictures"  # ids of the script elements
POLICY = (
    "default-src 'none'; img-src data:; font-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
KEYS = "← → Home End"

CSS = """
*{box-sizing:border-box}
body{margin:0;color:#1a1a1a;background:#fff;font-size:15px;line-height:1.45}
header{display:flex;gap:1em;align-items:baseline;padding:.6em 1.2em;border-bottom:1px solid #ddd;flex-wrap:wrap}
h1{font-size:1.05em;margin:0}
small,.faint{color:#5c5c5c;font-size:.86em}
nav{margin-inline-start:auto}
button{font:inherit;padding:.1em .7em;border:1px solid #bbb;background:#f6f6f6;border-radius:3px;cursor:pointer}
section{padding:1em 1.2em}
.paged section{display:none}
.paged section.now{display:block}
.sheet section{display:inline-block;vertical-align:top;padding:.5em;margin:.3em;border:1px solid #e3e3e3}
.panels{display:flex;flex-wrap:wrap;gap:14px;align-items:flex-start}
figure{margin:0;width:260px}
.sheet figure{width:112px}
.sheet .panels{gap:4px;flex-wrap:nowrap}
figure>div{position:relative;aspect-ratio:1;border:1px solid #bbb;background:#fafafa;overflow:hidden}
figure img,figure svg{position:absolute;inset:0;width:100%;height:100%}
figure img{object-fit:contain}
figcaption{font-size:.88em;min-height:1.4em;overflow-wrap:anywhere;margin-bottom:.2em}
.scale{width:58px;font-size:.75em;display:flex;gap:4px;height:260px;margin-top:1.75em}
.scale i{display:block;width:13px;background:linear-gradient(to top,VIRIDIS)}
.scale span{display:flex;flex-direction:column;justify-content:space-between}
ol.tokens{list-style:none;padding:0;margin:.7em 0 0;display:flex;flex-wrap:wrap;gap:.2em .9em}
ol.tokens li{cursor:default;padding:0 .15em}
ol.tokens li.on{color:#e4002b}
ol.tokens li:hover{background:#eee}
svg text{font-weight:bold;text-anchor:middle;dominant-baseline:central;paint-order:stroke;stroke-width:.06px}
svg .off rect{fill:#000;fill-opacity:.62;stroke:#fff;stroke-opacity:.25;stroke-width:.012}
svg .off text{fill:#fff;stroke:#000}
svg .on rect{fill:none;stroke:#e4002b;stroke-width:.03}
svg .on text{fill:#e4002b;stroke:#fff}
svg .seen rect{stroke:#ffd400;stroke-opacity:1;stroke-width:.06}
.entry{display:flex;gap:12px;flex-wrap:wrap;align-items:flex-start}
.entry figure{width:128px}
.entry .words{margin:0;width:128px;min-height:128px;padding:.4em;border:1px solid #bbb}
.entry .words{overflow-wrap:anywhere;background:#fafafa}
.query>div,.query .words{border-color:#1a1a1a;border-width:2px}
.right>div,.right .words{border-color:#1a7f37;border-width:3px}
.wrong>div,.wrong .words{border-color:#c9c9c9}
@media print{.paged section{display:block}nav{display:none}}
"""

SCRIPT = """
const pages=[...document.querySelectorAll('main.pages>section')];let now=0;
function go(n){now=Math.max(0,Math.min(pages.length-1,n));pages.forEach((p,i)=>p.classList.toggle('now',i===now));
const place=document.getElementById('place');if(place)place.textContent=(now+1)+' / '+pages.length;
history.replaceState(null,'','#'+(now+1))}
if(pages.length>1){document.body.classList.add('paged');go((parseInt(location.hash.slice(1))||1)-1);
document.addEventListener('keydown',e=>{const by={ArrowRight:1,PageDown:1,ArrowLeft:-1,PageUp:-1}[e.key];
if(by){go(now+by);e.preventDefault()}else if(e.key==='Home')go(0);else if(e.key==='End')go(pages.length-1)});
document.getElementById('back').onclick=()=>go(now-1);document.getElementById('on').onclick=()=>go(now+1)}
for(const item of document.querySelectorAll('ol.tokens li')){const
cells=item.closest('section').querySelectorAll('g[data-m="'+item.dataset.m+'"][data-t="'+item.dataset.t+'"]');
item.onmouseenter=()=>cells.forEach(c=>c.classList.add('seen'));
item.onmouseleave=()=>cells.forEach(c=>c.classList.remove('seen'))}
"""


def page(
    title: str,
    sections: Sequence[str],
    texts: Sequence[str],
    data: bytes,
    pictures: Mapping[str, bytes],
    *,
    layout: str = "pages",
    under: str = "",
    fonts: Fonts | None = None,
) -> bytes:
    """The file. `sections` are HTML, one a page (layout "pages") or all on one ("sheet", "list"); `texts` is whatever
    text they show; `data` the JSON that they are drawn from, `pictures` bytes by their sha256; `under` stands small
    beside the title. Raises NoFont for a character without a glyph.
    """
    from matplotlib import colormaps

    paging = layout == "pages" and len(sections) > 1
    keys = f'<span id="place"></span> <button id="back">←</button> <button id="on">→</button> <small>{KEYS}</small>'
    css = font_css([*texts, title, under, keys, "0123456789 /…"], fonts or find_fonts())
    ramp = ",".join(
        "#{:02x}{:02x}{:02x}".format(*(int(255 * v) for v in colormaps["viridis"](k / 8)[:3]))
        for k in range(9)
    )
    kept = {digest: base64.b64encode(content).decode() for digest, content in sorted(pictures.items())}
    parts = [
        '<!DOCTYPE html>\n<html lang="zh-Hans"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{html.escape(title)}</title>",
        f"<style>{css}{CSS.replace('VIRIDIS', ramp)}</style></head><body>",
        f"<header><h1>{html.escape(title)}</h1><small>{html.escape(under)}</small>",
        f"<nav>{keys}</nav>" if paging else "",
        f'</header><main class="{html.escape(layout)}">',
        *(f"<section>{section}</section>" for section in sections),
        "</main>",
        _script(DATA, data.strip()),
        _script(PICTURES, orjson.dumps(kept)),
        f"<script>{SCRIPT}</script></body></html>\n",
    ]
    return "\n".join(parts).encode()


def embedded(content: bytes) -> tuple[bytes, dict[str, bytes]]:
    """The JSON inside a page, and the pictures by sha256. Raises ValueError for any other HTML."""
    data = _inside(content, DATA)
    kept = orjson.loads(_inside(content, PICTURES))
    return data, {str(digest): base64.b64decode(value) for digest, value in kept.items()}


def _script(name: str, data: bytes) -> str:
    # `<` never stands in JSON outside of strings, where its escape means the same
    return f'<script type="application/json" id="{name}">{data.decode().replace("<", chr(92) + "u003c")}</script>'


def _inside(content: bytes, name: str) -> bytes:
    found = re.search(
        rb'<script type="application/json" id="%s">(.*?)</script>' % name.encode(), content, re.S
    )
    if found is None:
        raise ValueError("no figure of vlcli inside")
    return found[1].replace(b"\\u003c", b"<")


def img(pixels: npt.NDArray[np.uint8], alt: str = "") -> str:
    """An <img> with a PNG of (H, W, 3) inside."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{data}">'


def words(text: str, *, tag: str = "figcaption", lang: str | None = None, kind: str = "") -> str:
    """An element with a text in its own language and direction."""
    about = (f' lang="{html.escape(lang, quote=True)}"' if lang else "") + (
        f' class="{kind}"' if kind else ""
    )
    return f'<{tag} dir="auto"{about}>{html.escape(text)}</{tag}>'


def as_json(value: Any) -> bytes:
    """Indented JSON in which a list of plain values, such as a row of a grid, stays on one line."""
    return (_readable(value) + "\n").encode()


def _readable(value: Any, indent: int = 0) -> str:
    inner = "  " * (indent + 1)
    if isinstance(value, dict) and value:
        items = [f"{inner}{_plain(key)}: {_readable(v, indent + 1)}" for key, v in value.items()]
        return "{\n" + ",\n".join(items) + "\n" + inner[2:] + "}"
    if isinstance(value, list) and any(isinstance(v, list | dict) for v in value):
        items = [inner + _readable(v, indent + 1) for v in value]
        return "[\n" + ",\n".join(items) + "\n" + inner[2:] + "]"
    return _plain(value)


def _plain(value: Any) -> str:
    return orjson.dumps(value).decode()
