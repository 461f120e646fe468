"""check on checkpoints against their architecture: every tensor that load would refuse is named, and only those."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models_for_checkpoints import tiny_model

import vlcli
from vlcli.cli import app
from vlcli.errors import InputError
from vlcli.models.checkpoint import save_checkpoint
from vlcli.models.checksums import write_checksums
from vlcli.models.deepcheck import check_numbers
from vlcli.models.layout import layout_stamp, misfits
from vlcli.models.quickcheck import check_checkpoint, check_run
from vlcli.models.storage import layout_of
from vlcli.shards.findings import Verdict

NORM = "text.ln_final.weight"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / "run" / "checkpoints" / "step-00000001"
    save_checkpoint(tiny_model(), folder, recipe={}, lineage={})
    write_checksums(folder)
    return folder


def rewrite(place: Path, change) -> None:
    """The weights with `change` made to their dict, and sums that vouch for them."""
    weights = place / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(weights).items()}
    change(tensors)
    save_file(tensors, weights, metadata={"format": "pt"})
    write_checksums(place)


def edit_config(place: Path, change) -> None:
    config = json.loads((place / "config.json").read_text())
    change(config)
    (place / "config.json").write_text(json.dumps(config))
    write_checksums(place)


def found(place: Path, *, deep: bool = False) -> list[tuple[str, str]]:
    return [(finding.code, finding.message) for finding in check_checkpoint(place, deep=deep).findings]


@pytest.mark.parametrize("deep", [False, True])
def test_whole(place, deep):
    assert found(place, deep=deep) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(NORM), f"tensor {NORM} is missing"),
        (lambda t: t.update(more=torch.zeros(1)), "tensor more has no place in the architecture"),
        (
            lambda t: t.update({NORM: torch.zeros(33)}),
            f"tensor {NORM} has shape (33,), the architecture (32,)",
        ),
        (
            lambda t: t.update({NORM: torch.zeros(32, dtype=torch.int64)}),
            f"tensor {NORM} is of type I64, the architecture's of F32",
        ),
    ],
)
def test_a_tensor_that_does_not_fit(place, change, message):
    rewrite(place, change)
    assert found(place) == [("architecture", message)]
    assert found(place, deep=True) == [("architecture", message)]
    with pytest.raises(InputError, match="does not fit the architecture") as refused:
        vlcli.load(place)
    assert message in str(refused.value)


def test_all_are_listed_and_an_error_has_one_line(place):
    def drop_block(tensors):
        for name in [name for name in tensors if name.startswith("text.blocks.0.")]:
            del tensors[name]

    rewrite(place, drop_block)
    assert {code for code, _ in found(place)} == {"architecture"}
    assert len(found(place)) == 12
    with pytest.raises(InputError, match=r"is missing; .*; and 9 more$"):
        vlcli.load(place)


def test_an_architecture_of_another_model(place):
    edit_config(place, lambda config: config["architecture"].update(dim=24))
    assert found(place) == [
        (
            "architecture",
            f"tensor {side}_projection.weight has shape (16, {width}), the architecture (24, {width})",
        )
        for side, width in (("image", 1280), ("text", 32))
    ]
    edit_config(place, lambda config: config["architecture"].update(dim=0))
    assert found(place) == [("architecture", "architecture: dim: Input should be greater than or equal to 1")]
    edit_config(place, lambda config: config.pop("architecture"))
    assert [code for code, _ in found(place)] == ["architecture"]
    edit_config(place, lambda config: config.update(architecture={"image": {"name": "no_such_tower"}}))
    assert [code for code, _ in found(place)] == ["architecture"]


def test_floats_of_another_precision_fit(place):
    rewrite(place, lambda t: t.update({NORM: t[NORM].half()}))
    assert found(place) == []
    model = vlcli.load(place)
    assert model.text.ln_final.weight.dtype == torch.float32


def test_without_a_stamp_the_model_is_built(place):
    edit_config(place, lambda config: config.pop("layout"))
    assert found(place) == []
    rewrite(place, lambda t: t.pop(NORM))
    assert found(place) == [("architecture", f"tensor {NORM} is missing")]


def test_what_config_vouches_for_needs_no_torch(place):
    code = (
        "import sys; from pathlib import Path; from vlcli.models.quickcheck import check_checkpoint;"
        f"assert not check_checkpoint(Path({str(place)!r})).findings; print('torch' in sys.modules)"
    )
    for expected in ("False\n", "True\n"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == expected
        edit_config(place, lambda config: config.pop("layout", None))


def test_a_stamp_is_of_names_types_shapes_and_architecture():
    layout = {"a": ("F32", (2, 3)), "b": ("F32", (2,))}
    stamp = layout_stamp({"dim": 1, "x": {"y": 0.07}}, layout)
    assert stamp == layout_stamp({"x": {"y": 0.07}, "dim": 1}, dict(reversed(layout.items())))
    others = [
        ({"dim": 2, "x": {"y": 0.07}}, layout),
        ({"dim": 1, "x": {"y": 0.07}}, {**layout, "a": ("F16", (2, 3))}),
        ({"dim": 1, "x": {"y": 0.07}}, {**layout, "a": ("F32", (3, 2))}),
        ({"dim": 1, "x": {"y": 0.07}}, {"a": layout["a"]}),
    ]
    assert stamp not in {layout_stamp(*other) for other in others}


def test_misfits_of_a_model_with_itself():
    layout = layout_of(tiny_model().state_dict())
    assert misfits(layout, layout) == []


def test_weights_that_are_no_numbers(place):
    def spoil(tensors):
        tensors[NORM][3] = math.nan
        tensors[NORM][5:7] = -math.inf
        tensors["text.token_embedding.weight"] = tensors["text.token_embedding.weight"].bfloat16()
        tensors["text.token_embedding.weight"][1000] = math.inf

    rewrite(place, spoil)
    assert found(place) == [], "a header does not show it"
    assert sorted(found(place, deep=True)) == [
        ("number", f"tensor {NORM} has 1 NaN and 2 infinite of 32 values"),
        ("number", "tensor text.token_embedding.weight has 32 infinite of 676,096 values"),
    ]
    assert app(["check", "--deep", str(place)], standalone_mode=False) == 3


def test_numbers_are_looked_at_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("vlcli.models.deepcheck._AT_ONCE", 4)
    tensor = torch.zeros(3, 3, dtype=torch.float16)
    tensor[0, 0] = tensor[1, 1] = tensor[2, 2] = math.nan
    save_file(
        {"a": tensor, "whole": torch.zeros(9), "count": torch.zeros(0), "id": torch.ones(3).long()},
        tmp_path / "w",
    )
    verdict = Verdict("", "checkpoint")
    kinds = {"a": ("F16", (3, 3)), "whole": ("F32", (9,)), "count": ("F32", (0,)), "id": ("I64", (3,))}
    check_numbers(tmp_path / "w", kinds, verdict)
    assert [finding.message for finding in verdict.findings] == ["tensor a has 3 NaN of 9 values"]


def test_a_tokenizer_that_is_not_the_tables(place):
    file = place / "vocab.txt"
    whole = file.read_bytes()
    cases = (
        (whole + "〈多〉\n".encode(), "the tokenizer has 21,129 pieces, the embedding table 21,128 rows"),
        (whole[: whole[:-1].rindex(b"\n") + 1], "the tokenizer has 21,127 pieces, it was saved with 21,128"),
    )
    for data, message in cases:
        file.write_bytes(data)
        write_checksums(place)
        assert found(place) == [("tokenizer", message)]
        with pytest.raises(InputError) as refused:
            vlcli.load(place)
        assert str(refused.value) == f"{place}: {message}"
    lines = whole.split(b"\n")
    file.write_bytes(b"\n".join([*lines[:999], lines[1000], *lines[1000:]]))
    write_checksums(place)
    assert found(place) == []
    ((code, message),) = found(place, deep=True)
    assert code == "tokenizer"
    assert "stands twice in the vocabulary" in message


def test_a_run_names_each_checkpoint(place):
    rewrite(place, lambda t: t.pop(NORM))
    (finding,) = check_run(place.parents[1]).findings
    assert (finding.code, finding.file) == ("architecture", str(place / "model.safetensors"))


def test_in_json(place, capsys):
    rewrite(place, lambda t: t.update(more=torch.zeros(1)))
    assert app(["check", "--json", str(place)], standalone_mode=False) == 3
    report = json.loads(capsys.readouterr().out)
    assert [f["message"] for f in report["findings"]] == ["tensor more has no place in the architecture"]
    assert report["paths"][0]["status"] == "damaged"
