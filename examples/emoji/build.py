"""Rebuild raw.parquet from the npm packages that its drawings and names come from.

    python build.py -o raw.parquet                  fetches eleven packages (43 MB) from the npm registry
    python build.py --packages DIR -o raw.parquet   … or takes NAME-VERSION.tgz as `npm pack` leaves them
    python build.py --packages DIR --compare raw.parquet

Needs `pip install vlcli[corpus]` (resvg-py, which rasterises SVG). Every package is checked against the
integrity that the registry published for it; nothing of it is unpacked to disk.

What is derived here, from the packages alone:

- A concept is an emoji of emojibase, without flags and components (skin tones, hair), that CLDR names in all
  nine languages and whose Chinese name has a Chinese character. Its hexcode has no variation selector FE0F.
- `family` joins what differs only in gender or in the person shown; all couples and families are one.
- A family is new in the splits of concepts when int(sha1(family)) % 1000 < 120.
- A drawing that an artist uses twice (equal in bytes) stands under the first concept in the package's order.
- Drawings are rendered 96 pixels wide on white (`fluent-3d` are pictures already), made smaller with Lanczos
  where a side is longer, and set in the middle of a white square. WebP, quality 85, method 6.

What is not: four packages name their drawings and have no code points. Where a drawing's name is not the
English name of its concept, drawings.tsv beside this script says which concept it is (or, with no code, that it
is none); these 229 choices were read off the corpus itself, by its pictures. The Chinese names of the eight groups
below are its own too.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from packages import ARTISTS, TEXTS, Artist, BuildError, Files, obtain, unpack
from PIL import Image

HERE = Path(__file__).parent
SIDE = 96
LANGUAGES = ("zh", "en", "es", "fr", "ru", "ar", "ja", "ko", "it")
GROUPS_ZH = {
    "smileys-emotion": "表情",
    "people-body": "人物",
    "animals-nature": "动物和植物",
    "food-drink": "食物和饮料",
    "travel-places": "旅行和地点",
    "activities": "活动",
    "objects": "物品",
    "symbols": "符号",
}

# Where the drawings of a concept go that no training picture shows.
SPLIT_NEW = {
    "train": "concept",
    "val-artist": "val-artist-new-concept",
    "test-artist": "test-artist-new-concept",
}


def hexcode(text: str) -> str:
    """Of an emoji, or of code points in hexadecimal: lower case, joined by "-", without FE0F."""
    codes = text.lower().split("-") if re.fullmatch(r"[0-9A-Fa-f]{4,6}(-[0-9A-Fa-f]{4,6})*", text) else None
    return "-".join(c for c in codes or [f"{ord(x):x}" for x in text] if c != "fe0f")


def family(code: str, subgroup: str) -> str:
    if subgroup == "family":
        return "family"
    person = re.match(r"1f(?:468|469|9d1)-200d-([0-9a-f]+)", code)
    return f"person-{person[1]}" if person else re.sub(r"-200d-264[02]$", "", code)


def is_new(family: str) -> bool:
    """Whether a family of concepts is kept from training."""
    return int(hashlib.sha1(family.encode()).hexdigest(), 16) % 1000 < 120


def slug(name: str) -> str:
    """ "man’s shoe" → "mans-shoe", as icon sets write names."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name.lower()) if not unicodedata.combining(c))
    return re.sub("[^a-z0-9]+", "-", re.sub("['’“”]", "", plain).replace("&", "and")).strip("-")


def concepts(annotations: Files, derived: Files, emojibase: Files) -> dict[str, dict[str, Any]]:
    """hexcode → the columns that all its drawings share, and `labels`, the English names to find them by."""
    said: dict[str, dict[str, Any]] = {}
    for language in LANGUAGES:
        said[language] = {}
        for files, key in ((annotations, "annotations"), (derived, "annotationsDerived")):
            entries = json.loads(files[f"{key}/{language}/annotations.json"])[key]["annotations"]
            for emoji, entry in entries.items():
                said[language].setdefault(hexcode(emoji), entry)
    groups = json.loads(emojibase["meta/groups.json"])
    found: dict[str, dict[str, Any]] = {}
    names: set[str] = set()
    for entry in json.loads(emojibase["en/data.json"]):
        code = hexcode(entry["hexcode"])
        group = groups["groups"].get(str(entry.get("group")))
        texts = {language: said[language].get(code, {}) for language in LANGUAGES}
        if group not in GROUPS_ZH or not all(t.get("tts") for t in texts.values()):
            continue
        name = {language: t["tts"][0] for language, t in texts.items()}
        if not re.search("[\u4e00-\u9fff]", name["zh"]) or name["zh"] in names:
            continue
        names.add(name["zh"])
        subgroup = groups["subgroups"][str(entry["subgroup"])]
        found[code] = {
            "name": name["zh"],
            "keywords": [k for k in texts["zh"].get("default", []) if k != name["zh"]],
            "name_en": name["en"],
            "keywords_en": [k for k in texts["en"].get("default", []) if k != name["en"]],
            **{f"name_{language}": name[language] for language in LANGUAGES[2:]},
            "group": group,
            "group_zh": GROUPS_ZH[group],
            "subgroup": subgroup,
            "hexcode": code,
            "family": family(code, subgroup),
            "labels": [slug(name["en"]), slug(entry["label"])],
        }
    return found


def load_names(file: Path) -> dict[tuple[str, str], str]:
    """drawings.tsv: (artist, drawing) → hexcode, "" for a drawing of no concept."""
    lines = (line.split("\t") for line in file.read_text().splitlines() if not line.startswith("#"))
    return {(artist, drawing): code for artist, drawing, code in lines}


def drawings(
    artist: str, files: Files, known: Mapping[str, Any], names: Mapping[tuple[str, str], str]
) -> Iterator[tuple[str, bytes | str]]:
    """(hexcode, SVG text or bytes of a picture) in the package's order."""
    if "icons.json" not in files:
        first: dict[str, str] = {}  # a picture may be there with and without FE0F in its name
        for path in sorted(p for p in files if p.startswith("assets/")):
            first.setdefault(hexcode(Path(path).stem), path)
        yield from ((code, files[path]) for code, path in first.items())
        return
    icons = json.loads(files["icons.json"])
    if chars := json.loads(files["chars.json"]):
        for code, name in chars.items():
            yield hexcode(code), svg(icons, name)
        return
    labels = {bare(label): code for code, c in reversed(known.items()) for label in reversed(c["labels"])}
    for name in icons["icons"]:
        yield names.get((artist, name), labels.get(bare(name), "")), svg(icons, name)


def bare(drawing: str) -> str:
    """What the names of drawings and of concepts are compared by: no hyphens, no number of a variant."""
    return re.sub(r"-\d$", "", drawing).replace("-", "")


def svg(icons: Mapping[str, Any], name: str) -> str:
    """An icon of an Iconify set as a document of its own; an alias is its parent's drawing."""
    while name not in icons["icons"]:
        name = icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}">'
        f"{icon['body']}</svg>"
    )


def picture(drawing: bytes | str) -> bytes:
    """A drawing as 96 × 96 WebP on white."""
    if isinstance(drawing, str):
        import resvg_py

        drawing = bytes(resvg_py.svg_to_bytes(svg_string=drawing, width=SIDE))
    image = Image.open(io.BytesIO(drawing)).convert("RGBA")
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image)
    flat = page.convert("RGB")
    flat.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)  # only downwards, its proportions kept
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(flat, ((SIDE - flat.width) // 2, (SIDE - flat.height) // 2))
    buffer = io.BytesIO()
    square.save(buffer, "WEBP", quality=85, method=6)
    return buffer.getvalue()


def rows(artist: Artist, files: Files, known: Mapping[str, Any], names: Mapping) -> Iterator[dict[str, Any]]:
    """The rows of one artist. A second drawing of a concept is `_2`; one that was there already is left out."""
    seen: set[bytes] = set()
    count: Counter[str] = Counter()
    for code, drawing in drawings(artist.name, files, known, names):
        if code not in known or ((data := picture(drawing)) in seen):
            continue
        seen.add(data)
        count[code] += 1
        identity = f"{artist.name}/{code}" + (f"_{count[code]}" if count[code] > 1 else "")
        concept = {name: value for name, value in known[code].items() if name != "labels"}
        yield {
            "id": identity,
            "image": {"bytes": data, "path": f"{identity}.webp"},
            "width": SIDE,
            "height": SIDE,
            **concept,
            "artist": artist.name,
            "package": str(artist.package),
            "licence": artist.licence,
            "split": SPLIT_NEW[artist.split] if is_new(concept["family"]) else artist.split,
        }


def build(folder: Path | None, log: Any = sys.stderr) -> pl.DataFrame:
    texts = [unpack(obtain(package, folder), str(package)) for package in TEXTS]
    known = concepts(*texts)
    names = load_names(HERE / "drawings.tsv")
    made: list[dict[str, Any]] = []
    for artist in ARTISTS:
        before = len(made)
        made += rows(artist, unpack(obtain(artist.package, folder), str(artist.package)), known, names)
        print(f"{artist.name}: {len(made) - before:,} drawings", file=log)
    return pl.DataFrame(made)


def compare(mine: pl.DataFrame, theirs: pl.DataFrame) -> tuple[list[str], bool]:
    """What differs, line by line; True when ids, order and all columns but the pictures are equal."""
    lines = [f"rows: {mine.height:,} and {theirs.height:,}"]
    same = mine["id"].to_list() == theirs["id"].to_list()
    lines.append(f"ids and their order: {'equal' if same else 'DIFFERENT'}")
    if not same:
        a, b = set(mine["id"]), set(theirs["id"])
        lines.append(f"only built: {sorted(a - b)[:5]}; only there: {sorted(b - a)[:5]}")
        return lines, False
    columns = [c for c in theirs.columns if c != "image"]
    wrong = [c for c in columns if c not in mine.columns or mine[c].to_list() != theirs[c].to_list()]
    lines.append(
        f"{len(columns)} columns besides the pictures: {'equal' if not wrong else f'DIFFERENT {wrong}'}"
    )
    for artist in theirs["artist"].unique(maintain_order=True):
        pairs = [
            (x["bytes"], y["bytes"])
            for x, y in zip(
                mine.filter(pl.col("artist") == artist)["image"],
                theirs.filter(pl.col("artist") == artist)["image"],
                strict=True,
            )
        ]
        equal = sum(x == y for x, y in pairs)
        gaps = [np.abs(pixels(x) - pixels(y)) for x, y in pairs if x != y]
        worst, mean = max((g.max() for g in gaps), default=0), sum(g.mean() for g in gaps) / len(pairs)
        lines.append(
            f"{artist}: {equal:,} of {len(pairs):,} pictures equal in bytes; greatest difference of a pixel "
            f"{worst:.0f} of 255, mean {mean:.4f}"
        )
    return lines, not wrong


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Rebuild raw.parquet from its npm packages.")
    parser.add_argument("-o", "--output", type=Path, help="Parquet file to write.")
    parser.add_argument("--packages", type=Path, metavar="DIR", help="Folder of NAME-VERSION.tgz.")
    parser.add_argument(
        "--compare", type=Path, metavar="PARQUET", help="Compare with this; exit 1 if it differs."
    )
    options = parser.parse_args(arguments)
    if options.output is None and options.compare is None:
        parser.error("give -o, --compare, or both")
    if options.output is not None and options.output.exists():
        raise BuildError(f"{options.output} exists")
    made = build(options.packages)
    if options.compare is not None:
        lines, equal = compare(made, pl.read_parquet(options.compare))
        print("\n".join(lines))
        if not equal:
            raise SystemExit(1)
    if options.output is not None:
        temporary = options.output.with_name(f".{options.output.name}.tmp")
        made.write_parquet(temporary, row_group_size=1024)
        temporary.replace(options.output)


if __name__ == "__main__":
    main()
