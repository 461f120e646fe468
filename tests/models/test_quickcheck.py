"""check on checkpoints: every truncation of the weights is found, and what safetensors writes is whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_models_for_checkpoints import tiny_model

from vlcli.cli import app
from vlcli.models.checkpoint import save_checkpoint
from vlcli.models.checksums import write_checksums
from vlcli.models.layout import layout_stamp
from vlcli.models.quickcheck import check_checkpoint, check_run, is_checkpoint, is_run


def vouched(folder: Path) -> None:
    """config.json as if these tensors were those of its architecture, so that nothing builds a model."""
    layout = {
        "a": ("F32", (3, 5)),
        "b": ("BF16", (7,)),
        "c": ("I64", ()),
        "d": ("F32", (0,)),
        "e": ("BOOL", (2,)),
    }
    config = {"kind": "dual", "architecture": {}, "layout": layout_stamp({}, layout)}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "checkpoints" / "step-00000010"
    folder.mkdir(parents=True)
    tensors = {
        "a": torch.zeros(3, 5),
        "b": torch.ones(7, dtype=torch.bfloat16),
        "c": torch.ones((), dtype=torch.int64),
        "d": torch.zeros(0),
        "e": torch.tensor([True, False]),
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    vouched(folder)
    (folder / "vocab.txt").write_text("[PAD]\n")
    return folder


def test_whole(checkpoint: Path) -> None:
    assert is_checkpoint(checkpoint)
    assert check_checkpoint(checkpoint).findings == []
    assert app(["check", str(checkpoint)], standalone_mode=False) in (None, 0)


def test_a_vocabulary_that_is_gone(checkpoint: Path) -> None:
    (checkpoint / "vocab.txt").unlink()
    assert [f.message for f in check_checkpoint(checkpoint).findings] == ["no vocab.txt"]


def test_every_truncation(checkpoint: Path, tmp_path: Path) -> None:
    weights = checkpoint / "model.safetensors"
    data = weights.read_bytes()
    for size in range(len(data)):
        weights.write_bytes(data[:size])
        assert [f.code for f in check_checkpoint(checkpoint).findings] == ["weights"], size
    weights.write_bytes(data + b"\0")
    assert "more than its header describes" in check_checkpoint(checkpoint).findings[0].message


def test_a_header_that_lies(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    data = weights.read_bytes()
    for old, new in ((b"[3,5]", b"[3,6]"), (b'"F32"', b'"F64"'), (b"[0,", b"[8,"), (b'{"', b'["')):
        assert old in data
        weights.write_bytes(data.replace(old, new, 1))
        assert check_checkpoint(checkpoint).status == "damaged", new


def test_config_and_missing_files(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "config.json").write_text('{"kind": ')
    assert [f.code for f in check_checkpoint(checkpoint).findings] == ["config"]
    (checkpoint / "config.json").unlink()
    assert check_checkpoint(checkpoint).findings[0].message == "no config.json"


def test_a_run(checkpoint: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    os.symlink("checkpoints/step-00000010", run / "last")
    assert is_run(run)
    assert check_run(run).findings == []
    shutil.rmtree(checkpoint)
    assert [f.code for f in check_run(run).findings] == ["missing"]


def test_every_byte_is_what_it_was(checkpoint: Path) -> None:
    save_checkpoint(tiny_model(), checkpoint, recipe={}, lineage={})
    (checkpoint / "training.pt").write_bytes(bytes(1000))
    write_checksums(checkpoint)
    assert check_checkpoint(checkpoint, deep=True).findings == []
    if program := shutil.which("sha256sum"):  # macOS calls it shasum -a 256
        subprocess.run([program, "--check", "--quiet", "SHA256SUMS"], cwd=checkpoint, check=True)
    for name in ("training.pt", "model.safetensors"):
        data = bytearray((checkpoint / name).read_bytes())
        data[-1] ^= 1
        (checkpoint / name).write_bytes(data)
        assert check_checkpoint(checkpoint).findings == [], "a size and a header do not show it"
        (found,) = check_checkpoint(checkpoint, deep=True).findings
        assert (found.code, Path(found.file).name) == ("checksum", name)
        assert app(["check", "--deep", str(checkpoint.parents[1])], standalone_mode=False) == 3
        data[-1] ^= 1
        (checkpoint / name).write_bytes(data)
    (checkpoint / "training.pt").unlink()
    (found,) = check_checkpoint(checkpoint).findings
    assert found.message == "no training.pt, which SHA256SUMS lists"
    (checkpoint / "SHA256SUMS").write_bytes(b"")  # would vouch for anything
    assert [f.message for f in check_checkpoint(checkpoint).findings] == [
        f"it does not list {name}" for name in ("config.json", "model.safetensors")
    ]
    for line in ("nonsense", f"{'0' * 64}  ../outside"):
        (checkpoint / "SHA256SUMS").write_text(line + "\n")
        (found,) = check_checkpoint(checkpoint).findings
        assert "line 1 is not a sum and a name" in found.message
