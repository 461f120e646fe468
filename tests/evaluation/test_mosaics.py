import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from tiny_models import tiny

from vlcli.errors import InputError
from vlcli.evaluation.mosaics import Mosaic, assemble, cells_of, load_mosaics, pointing, takes_any_size

EMOJI = Path(__file__).parents[2] / "examples" / "emoji"


class Pointer:
    """A model that sees: a picture is a number c, its patches the c-th axis, and so is the text "c"."""

    similarity_kind, image_size, device, grid = "tokenwise", 4, torch.device("cpu"), (2, 2)

    def __init__(self, blind=False):
        self.blind = blind
        self.tokenizer = SimpleNamespace(
            find=lambda ids, part: [[1]], tokens=lambda ids: ["[CLS]", "x", "[SEP]"]
        )

    def preprocess_image(self, picture, size):
        return torch.full((3, size, size), float(picture))

    def image_features(self, pixels):
        axis = pixels[:, 0, 1::2, 1::2].flatten(1).long()  # one patch for 2 × 2 pixels
        tokens = torch.nn.functional.one_hot(axis, 16).float()
        return patches_of(tokens * (0 if self.blind else 1))

    def image_projection(self, tokens):
        return tokens

    def tokenize(self, texts):
        return torch.tensor([[0, int(texts[0]), 0]]), torch.ones(1, 3, dtype=torch.bool)

    def encode_text(self, ids, mask):
        tokens = torch.nn.functional.one_hot(ids, 16).float()
        return patches_of(tokens)


def patches_of(tokens):
    from vlcli.models.dual import ImageTokens

    return ImageTokens(tokens, None)


def mosaics(count=40):
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        cells = rng.choice(np.arange(1, 16), 4, replace=False)
        target = int(rng.integers(4))
        made.append(Mosaic(tuple(map(str, cells)), target, str(cells[target])))
    return made


def test_a_seeing_model_points_right_and_a_blind_one_never():
    result = pointing(Pointer(), mosaics(), int, bootstrap=100)
    assert (result["accuracy"], result["n"], result["grid"]) == (100.0, 40, [4, 4])
    assert result["ci95"] == [100.0, 100.0]
    assert result["marks"] == 100.0
    assert pointing(Pointer(blind=True), mosaics(), int, bootstrap=0)["accuracy"] == 0.0  # all tie: wrong


def test_a_wrong_target_is_counted_wrong():
    turned = [Mosaic(m.images, (m.target + 1) % 4, m.text) for m in mosaics()]
    assert pointing(Pointer(), turned, int, bootstrap=0)["accuracy"] == 0.0


def test_cells_fill_their_quadrants_in_reading_order():
    whole = assemble([torch.full((3, 2, 2), float(c)) for c in range(4)])
    assert whole[0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert cells_of((4, 4)).tolist() == whole[0].int().tolist()
    odd = cells_of((7, 7))
    assert (odd == -1).sum() == 13  # the middle row and column are nobody's
    assert all((odd == c).sum() == 9 for c in range(4))


def test_a_tower_with_fixed_positions_does_not_take_any_size():
    assert takes_any_size(tiny(tower="test_efficientnet"))
    assert not takes_any_size(tiny(tower="vit_tiny_patch16_224"))


@pytest.mark.parametrize("kind", ["global", "reduced"])
def test_models_without_patch_tokens_point_by_their_heat_maps(kind):
    pictures = {"a": "red", "b": "green", "c": "blue", "d": "black"}
    listed = [Mosaic(("a", "b", "c", "d"), target, "红色") for target in range(4)]
    model = tiny(kind, tower="test_efficientnet")
    result = pointing(model, listed, lambda name: Image.new("RGB", (40, 40), pictures[name]), bootstrap=0)
    assert result["accuracy"] == 25.0, "one picture, asked for each cell in turn: it points at one of them"
    assert result["grid"] == [4, 4]
    assert result["marks"] is None, "the papers' display needs patch tokens"


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        '{"images": ["a"], "target": 0, "text": "x"}',
        "x",
        '{"images": [1,2,3,4], "target": 4, "text": ""}',
    ],
)
def test_a_line_that_is_no_mosaic_is_named(tmp_path, line):
    file = tmp_path / "mosaics.jsonl"
    file.write_text('{"images": ["a","b","c","d"], "target": 0, "text": "x"}\n' + line + "\n")
    with pytest.raises(InputError, match=r"mosaics.jsonl:2: not"):
        load_mosaics(file)


def test_the_committed_list_is_what_its_script_makes():
    namespace = {"__file__": str(EMOJI / "make_mosaics.py"), "__name__": "script"}
    exec(compile((EMOJI / "make_mosaics.py").read_text(), "make_mosaics.py", "exec"), namespace)
    committed = [json.loads(line) for line in (EMOJI / "mosaics.jsonl").read_text().splitlines()]
    assert committed == namespace["mosaics"]()
    assert len(load_mosaics(EMOJI / "mosaics.jsonl")) == 1000


def test_the_committed_list_names_one_of_four_families():
    rows = pl.read_parquet(EMOJI / "raw.parquet", columns=["id", "name", "family", "split"])
    of = {row["id"]: row for row in rows.filter(pl.col("split") == "val-artist").rows(named=True)}
    listed = load_mosaics(EMOJI / "mosaics.jsonl")
    for mosaic in listed:
        cells = [of[name] for name in mosaic.images]
        assert len({cell["family"] for cell in cells}) == 4
        assert len({cell["name"] for cell in cells}) == 4
        assert cells[mosaic.target]["name"] == mosaic.text
    assert len({mosaic.text for mosaic in listed}) == 519
    share = np.bincount([mosaic.target for mosaic in listed]) / len(listed)
    assert np.abs(share - 0.25).max() < 0.05
