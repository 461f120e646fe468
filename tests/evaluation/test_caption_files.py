"""Captions and references of every kind of file, joined by image; and every way in which they do not fit."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.caption_files import read_captioned

GENERATED = [
    {"image_id": "1", "image": "a.png", "caption_generated": "狗", "text": "一只狗"},
    {"image_id": "2", "image": "b.png", "caption_generated": "", "text": ["两只猫", "猫"]},
]


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name, content):
        text = content if isinstance(content, str) else lines(content)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return name

    return write


def pairs(found):
    return dict(zip(found.images, zip(found.captions, found.references, strict=True), strict=True))


def test_rows_carry_their_own_references(write):
    found = read_captioned([write("c.jsonl", GENERATED)], None)
    assert pairs(found) == {"1": ("狗", ["一只狗"]), "2": ("", ["两只猫", "猫"])}
    assert (found.source, found.split) == ("c.jsonl", None)


def test_references_of_an_image_may_stand_in_many_rows_and_its_caption_too(write):
    ours = write("c.jsonl", [*GENERATED, GENERATED[0]])
    theirs = [{"image_id": "1", "text": text, "split": "val"} for text in ("狗", "一只狗", "狗")]
    theirs += [{"image_id": "2", "text": "猫", "split": "val"}]
    found = read_captioned([ours], [write("r.jsonl", theirs)])
    assert pairs(found) == {"1": ("狗", ["狗", "一只狗"]), "2": ("", ["猫"])}
    assert found.split == "val"


@pytest.mark.parametrize("packed", [False, True])
def test_cocos_files_are_read(write, tmp_path, packed):
    results = json.dumps([{"image_id": 2, "caption": "猫"}, {"image_id": 1, "caption": "狗"}], indent=1)
    notes = [{"id": 7, "image_id": 1, "caption": "一只狗"}, {"id": 8, "image_id": 2, "caption": "猫"}]
    notes += [{"id": 9, "image_id": 1, "caption": "狗"}]
    document = json.dumps({"info": {}, "images": [{"id": 1}, {"id": 2}], "annotations": notes})
    names = [write("r.json", results), write("a.json", document)]
    if packed:
        for i, name in enumerate(names):
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
            names[i] = f"{name}.gz"
    found = read_captioned([names[0]], [names[1]])
    assert pairs(found) == {"2": ("猫", ["猫"]), "1": ("狗", ["一只狗", "狗"])}


def test_a_row_of_captions_may_call_them_caption(write):
    ours = write("c.jsonl", [{"image_id": 1, "caption": "狗"}, {"image_id": 2, "caption": ""}])
    theirs = write("r.jsonl", [{"image_id": 1, "text": "狗"}, {"image_id": 2, "text": "猫"}])
    assert pairs(read_captioned([ours], [theirs]))["2"] == ("", ["猫"])


def test_images_are_joined_by_id_where_some_have_no_image_id(write):
    ours = write("c.jsonl", [{"id": "a", "image_id": "9", "caption_generated": "狗"}])
    theirs = write("r.jsonl", [{"id": "a", "text": "狗"}])
    assert pairs(read_captioned([ours], [theirs])) == {"a": ("狗", ["狗"])}


def test_the_order_of_files_does_not_name_another_set(write):
    ours = write("c.jsonl", GENERATED)
    turned = write("d.jsonl", GENERATED[::-1])
    one, other = read_captioned([ours], None), read_captioned([turned], None)
    assert (one.split_hash, one.captions_hash) == (other.split_hash, other.captions_hash)
    another = write("e.jsonl", [{**GENERATED[0], "caption_generated": "猫"}, GENERATED[1]])
    changed = read_captioned([another], None)
    assert changed.split_hash == one.split_hash
    assert changed.captions_hash != one.captions_hash


REFERENCES = [{"image_id": "1", "text": "狗"}, {"image_id": "2", "text": "猫"}]


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (
            GENERATED,
            REFERENCES[:1],
            r"^c\.jsonl and r\.jsonl: 1 of 2 images have a caption and no reference: 2; --common",
        ),
        (
            GENERATED[:1],
            REFERENCES,
            r"^c\.jsonl and r\.jsonl: 1 of 2 images have no caption: 2; --common",
        ),
        (GENERATED, [{"image_id": "3", "text": "狗"}], r"no image in common: 1, 2 and 3$"),
        (
            [*GENERATED, {**GENERATED[0], "caption_generated": "猫"}],
            REFERENCES,
            r"^c\.jsonl:3: a second caption of the image 1$",
        ),
        (
            [GENERATED[0], {"image_id": "2", "text": "x"}],
            REFERENCES,
            r"^c\.jsonl:2: no caption_generated, which",
        ),
        (
            [{"image_id": "1", "text": ["a", "b"]}],
            REFERENCES,
            r"^c\.jsonl:1: no caption_generated, and 2 texts$",
        ),
        ([{"image_id": "1", "caption_generated": 5}], REFERENCES, r"^c\.jsonl:1: caption_generated is not a"),
        ([{"caption_generated": "狗"}], REFERENCES, r"^c\.jsonl:1: no image_id$"),
        (
            [{"id": "a", "caption_generated": "狗"}],
            REFERENCES,
            r"^r\.jsonl:1: no id, and other rows have no image_id$",
        ),
        (GENERATED, [{"image_id": "1"}, {"image_id": "2"}], r"^c\.jsonl and r\.jsonl: no references$"),
        ("", REFERENCES, r"no captions"),
        ('[{"image_id": 1, "caption": "狗"', REFERENCES, r"^c\.jsonl:1: not JSON: .*column"),
        ('[{"image_id": 1}]', REFERENCES, r"^c\.jsonl: entry 1: no caption$"),
        (
            '[{"image_id": true, "caption": ""}]',
            REFERENCES,
            r"^c\.jsonl: entry 1: image_id is not a number or",
        ),
        (
            GENERATED,
            '{"images": [], "annotations": [{"image_id": 1, "caption',
            r"^r\.jsonl:1: not JSON: .*column",
        ),
        (GENERATED, '{"image_id": "1", "text": "狗"}\n{"image_id"', r"^r\.jsonl:2: "),
    ],
)
def test_what_does_not_fit_is_one_line_with_its_place(write, ours, theirs, message):
    names = [write("c.jsonl", ours)], [write("r.jsonl", theirs)]
    with pytest.raises(InputError, match=message) as raised:
        read_captioned(*names)
    assert "\n" not in str(raised.value)


def test_common_scores_what_both_have(write):
    found = read_captioned(
        [write("c.jsonl", GENERATED)],
        [write("r.jsonl", [*REFERENCES[:1], {"image_id": "3", "text": "鸟"}])],
        common=True,
    )
    assert (pairs(found), found.unknown, found.uncaptioned) == ({"1": ("狗", ["狗"])}, 1, 1)


@pytest.mark.parametrize("document", [False, True])
def test_of_some_captions_the_references_may_be_more(write, document):
    rows = [{"image_id": k, "caption": "狗" * (k + 1)} for k in range(4)]
    ours = write("c.json", json.dumps(rows)) if document else write("c.jsonl", rows)
    theirs = write("r.jsonl", [{"image_id": str(k), "text": "狗"} for k in range(4)])
    found = read_captioned([ours], [theirs], head=2)
    assert (found.images, found.uncaptioned) == (["0", "1"], 2)


def test_rows_without_generated_captions_are_not_scored_against_themselves(write):
    with pytest.raises(UsageError, match="no row has caption_generated; name what people wrote"):
        read_captioned([write("r.jsonl", REFERENCES)], None)


@given(st.data())
def test_a_cut_file_is_said_to_be_cut_or_is_a_whole_shorter_one(tmp_path_factory, data):
    place = tmp_path_factory.mktemp("cut")
    whole = json.dumps([{"image_id": i, "caption": "狗"} for i in range(3)]).encode()
    (place / "r.jsonl").write_text(lines([{"image_id": str(i), "text": "狗"} for i in range(3)]))
    cut = data.draw(st.integers(1, len(whole) - 1))
    (place / "c.json").write_bytes(whole[:cut])
    with pytest.raises(InputError):
        read_captioned([str(place / "c.json")], [str(place / "r.jsonl")])
