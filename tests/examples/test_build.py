"""The script that rebuilds the corpus: its rules on made-up packages, and its safety; no network."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

EMOJI = Path(__file__).parents[2] / "examples" / "emoji"
sys.path.insert(0, str(EMOJI))

import build  # noqa: E402
import packages  # noqa: E402

from vlcli.text.labels import load_labels  # noqa: E402

NAMES = {  # hexcode: (zh, en, group, subgroup)
    "1F436": ("狗脸", "dog face", 3, 34),
    "1F98A": ("狐狸", "fox", 3, 34),
    "2764-FE0F": ("红心", "red heart", 0, 14),
    "1F46A": ("家庭", "family", 1, 30),
    "1F468-200D-1F680": ("男宇航员", "man astronaut", 1, 25),
    "1F4C0": ("DVD", "dvd", 7, 70),  # no Chinese name
    "1F1E8-1F1F3": ("中国", "flag: China", 9, 90),  # a flag
    "1F43A": ("狼", "wolf", 3, 34),  # no Arabic name, below
}
RED, BLUE = '<rect width="8" height="8" fill="#f00"/>', '<rect width="4" height="8" fill="#00f"/>'


def emoji(code: str) -> str:
    return "".join(chr(int(c, 16)) for c in code.split("-"))


def made_up() -> list[dict[str, bytes]]:
    files: dict[str, bytes] = {}
    for language in build.LANGUAGES:
        entries = {
            emoji(code).replace("\ufe0f", ""): {
                "default": ["其他", zh],
                "tts": [zh if language == "zh" else en],
            }
            for code, (zh, en, _, _) in NAMES.items()
            if (language, en) != ("ar", "wolf")
        }
        value = {"annotations": {"annotations": entries}}
        files[f"annotations/{language}/annotations.json"] = json.dumps(value).encode()
        empty = {"annotationsDerived": {"annotations": {}}}
        files[f"annotationsDerived/{language}/annotations.json"] = json.dumps(empty).encode()
    data = [
        {"hexcode": code, "label": en, "group": group, "subgroup": subgroup}
        for code, (_, en, group, subgroup) in NAMES.items()
    ]
    groups = {"0": "smileys-emotion", "1": "people-body", "3": "animals-nature", "7": "objects", "9": "flags"}
    subgroups = {"14": "heart", "25": "person-role", "30": "family", "34": "animal-mammal", "70": "computer"}
    meta = {"groups": groups, "subgroups": subgroups | {"90": "country-flag"}}
    emojibase = {"en/data.json": json.dumps(data).encode(), "meta/groups.json": json.dumps(meta).encode()}
    return [files, files, emojibase]


def icon_set(icons: dict[str, str], chars: dict[str, str]) -> dict[str, bytes]:
    value = {"icons": {n: {"body": b} for n, b in icons.items()}, "width": 8, "height": 8}
    value["aliases"] = {"puppy": {"parent": "dog-face"}}
    return {"icons.json": json.dumps(value).encode(), "chars.json": json.dumps(chars).encode()}


def test_concepts() -> None:
    known = build.concepts(*made_up())
    assert list(known) == ["1f436", "1f98a", "2764", "1f46a", "1f468-200d-1f680"]
    dog = known["1f436"]
    assert (dog["name"], dog["name_ko"], dog["keywords"]) == ("狗脸", "dog face", ["其他"])
    assert (dog["group"], dog["group_zh"], dog["subgroup"]) == (
        "animals-nature",
        "动物和植物",
        "animal-mammal",
    )
    assert known["1f46a"]["family"] == "family"


@pytest.mark.parametrize(
    ("code", "family"),
    [
        ("1f3c3-200d-2640", "1f3c3"),
        ("1f3c3", "1f3c3"),
        ("1f468-200d-1f680", "person-1f680"),
        ("1f9d1-200d-1f9af-200d-27a1", "person-1f9af"),
        ("1f6b6-200d-2640-200d-27a1", "1f6b6-200d-2640-200d-27a1"),
    ],
)
def test_families(code: str, family: str) -> None:
    assert build.family(code, "person") == family


def test_rules_give_the_columns_of_the_corpus() -> None:
    """Families, splits and identities of all rows that are committed."""
    corpus = pl.read_parquet(
        EMOJI / "raw.parquet", columns=["id", "hexcode", "family", "subgroup", "artist", "split"]
    )
    splits = {artist.name: artist.split for artist in packages.ARTISTS}
    for row in corpus.iter_rows(named=True):
        assert build.family(row["hexcode"], row["subgroup"]) == row["family"]
        split = splits[row["artist"]]
        assert row["split"] == (build.SPLIT_NEW[split] if build.is_new(row["family"]) else split)
    named = {(artist, code) for (artist, _), code in build.load_names(EMOJI / "drawings.tsv").items() if code}
    assert named <= {(row["artist"], row["hexcode"]) for row in corpus.iter_rows(named=True)}


def test_the_groups_are_named_in_every_language() -> None:
    corpus = pl.read_parquet(EMOJI / "raw.parquet", columns=["group", "group_zh"])
    chinese = dict(corpus.unique().iter_rows())
    for language in build.LANGUAGES:
        labels = load_labels(EMOJI / f"labels.group.{language}.txt")
        assert set(labels.names) == set(chinese), language
        assert not labels.duplicates, language
    assert load_labels(EMOJI / "labels.group.zh.txt").names == chinese


def test_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    known = build.concepts(*made_up())
    artist = replace(packages.ARTISTS[4], name="someone")
    icons = {"dog-face": RED, "dog-face-2": BLUE, "zorro": RED + BLUE, "fox": RED, "unknown": BLUE}
    rows = list(build.rows(artist, icon_set(icons, {}), known, {("someone", "zorro"): "1f98a"}))
    # "fox" is drawn as the dog is: it was there already.
    assert [r["id"] for r in rows] == ["someone/1f436", "someone/1f436_2", "someone/1f98a"]
    assert [r["image"]["path"] for r in rows] == [f"{r['id']}.webp" for r in rows]
    assert {r["split"] for r in rows} <= {"train", "concept"}
    pixels = [np.asarray(Image.open(io.BytesIO(r["image"]["bytes"])).convert("RGB"), int) for r in rows]
    assert pixels[0].shape == (96, 96, 3)
    assert np.abs(pixels[0] - [255, 0, 0]).max() < 8
    assert np.abs(pixels[1][:, :40] - [0, 0, 255]).max() < 8
    assert (pixels[1][:, 60:] > 247).all()  # where nothing is drawn it is white
    by_code = icon_set({"dog-face": RED}, {"1f436": "puppy", "2764-fe0f": "dog-face"})
    assert [r["hexcode"] for r in build.rows(artist, by_code, known, {})] == ["1f436"]


def test_pictures_of_a_package_that_has_no_drawings() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (256, 256), (0, 128, 0, 0)).save(buffer, "WEBP", lossless=True)
    files = {f"assets/{n}.webp": buffer.getvalue() for n in ("2764-fe0f", "2764", "1f436")}
    codes = [code for code, _ in build.drawings("a", files, {}, {})]
    assert codes == ["1f436", "2764"]
    page = Image.open(io.BytesIO(build.picture(buffer.getvalue())))
    assert page.size == (96, 96)
    assert (np.asarray(page.convert("RGB")) > 250).all()


@pytest.mark.parametrize("size", [(8, 4), (4, 8)])
def test_proportions_are_kept(size: tuple[int, int]) -> None:
    """A drawing that is not square stands in the middle of a white square."""
    width, height = size
    icon = {"body": f'<rect width="{width}" height="{height}"/>', "width": width, "height": height}
    drawing = build.svg({"icons": {"x": icon}}, "x")
    page = np.asarray(Image.open(io.BytesIO(build.picture(drawing))).convert("L"), int)
    if height > width:
        page = page.T
    assert page[30:66].max() < 12
    assert page[:20].min() > 243
    assert page[-20:].min() > 243


def tarball(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            info.size = 2 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"{}"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "member",
    [
        ("package/../../x", tarfile.REGTYPE),
        ("/etc/x", tarfile.REGTYPE),
        ("package/x", tarfile.SYMTYPE),
        ("package/x", tarfile.LNKTYPE),
        ("package/x", tarfile.CHRTYPE),
    ],
)
def test_nothing_leads_out_of_a_package(member: tuple[str, bytes]) -> None:
    good = ("package/a/b.json", tarfile.REGTYPE)
    assert packages.unpack(tarball(good)) == {"a/b.json": b"{}"}
    with pytest.raises(SystemExit, match="member"):
        packages.unpack(tarball(good, member))


def test_a_package_is_the_published_one(tmp_path: Path) -> None:
    data = tarball(("package/x", tarfile.REGTYPE))
    package = packages.Package("@a/b", "1.0", base64.b64encode(hashlib.sha512(data).digest()).decode())
    (tmp_path / "a-b-1.0.tgz").write_bytes(data)
    assert packages.obtain(package, tmp_path) == data
    (tmp_path / "a-b-1.0.tgz").write_bytes(data + b"x")
    with pytest.raises(SystemExit, match=r"@a/b@1\.0: its sha512 is not the published one"):
        packages.obtain(package, tmp_path)
    with pytest.raises(SystemExit, match=r"npm pack @a/b@1\.0"):
        packages.obtain(package, tmp_path / "nothing")


def test_the_registry_is_the_one_that_npm_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY", "NPM_CONFIG_USERCONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert packages.registry(tmp_path / "home") == packages.REGISTRY
    (tmp_path / ".npmrc").write_text("; mine\nstrict-ssl=true\nregistry = https://npm.example/all/\n")
    assert packages.registry(tmp_path / "home") == "https://npm.example/all/"
    monkeypatch.setenv("npm_config_registry", "https://other.example")
    assert packages.registry(tmp_path) == "https://other.example"
    assert packages.ARTISTS[0].package.path == "@iconify-json/twemoji/-/twemoji-1.2.5.tgz"


def test_compare() -> None:
    corpus = pl.read_parquet(EMOJI / "raw.parquet", n_rows=3)
    lines, same = build.compare(corpus, corpus)
    assert same
    assert "twemoji: 3 of 3 pictures equal in bytes" in lines[-1]
    lines, same = build.compare(corpus.with_columns(name=pl.lit("x")), corpus)
    assert not same
    assert "DIFFERENT ['name']" in lines[2]
    assert not build.compare(corpus.head(2), corpus)[1]
