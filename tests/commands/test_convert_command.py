"""vlcli convert as a user gives it, beyond the formats' own numbers (tests/models/adapters)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import vlcli
from vlcli.models.checkpoint import save_checkpoint
from vlcli.models.config import DualEncoderConfig
from vlcli.models.dual import DualEncoder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = DualEncoder(
        DualEncoderConfig.model_validate(
            {
                "dim": 16,
                "image": {"name": "efficientnet_lite0", "preprocess": {"size": 32}},
                "text": {"width": 32, "layers": 1, "heads": 2},
            }
        )
    )
    save_checkpoint(model, tmp_path / "ours", recipe={}, lineage={})
    return tmp_path / "ours"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vlcli", "convert", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_onnx_graphs_give_the_models_vectors(checkpoint, tmp_path):
    done = run(checkpoint, "--to", "onnx", "-o", tmp_path / "onnx")
    assert done.returncode == 0, done.stderr
    assert "onnxruntime within" in done.stderr
    model = vlcli.load(checkpoint)
    ids, mask = model.tokenize(["一只狐狸", "企鹅在冰上走路", "猫"])
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "text.onnx"))
    (tokens,) = session.run(["tokens"], {"ids": ids.numpy(), "mask": mask.numpy()})
    with torch.inference_mode():
        expected = model.encode_text(ids, mask).tokens
    assert expected is not None
    assert np.abs(tokens[mask.numpy()] - expected.numpy()[mask.numpy()]).max() < 1e-4
    again = run(checkpoint, "--to", "onnx", "-o", tmp_path / "onnx")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "--force" in again.stderr


def test_the_card_has_the_results_of_these_weights(checkpoint, tmp_path):
    found = vlcli.load(checkpoint).checkpoint_hash
    result = {"checkpoint": found, "data": "val.jsonl", "split": "val", "similarity": "tokenwise", "MR": 41.5}
    lines = [result, {**result, "checkpoint": "0" * 16}]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run(
        checkpoint, "-o", tmp_path / "out", "--results", tmp_path / "results.jsonl", "--license", "mit"
    )
    assert done.returncode == 0, done.stderr
    assert "--results: 1 measured on other weights" in done.stderr
    card = (tmp_path / "out" / "README.md").read_text()
    assert "41.5" in card
    assert 'license: "mit"' in card
    assert vlcli.load(tmp_path / "out").checkpoint_hash == found
    check = subprocess.run(
        [sys.executable, "-m", "vlcli", "check", "--deep", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stdout + check.stderr


@pytest.mark.parametrize(
    ("line", "told"), [("{", "not a JSON object"), ('{"MR": 1}', "a result without checkpoint")]
)
def test_results_that_say_nothing_are_refused(checkpoint, tmp_path, line, told):
    (tmp_path / "results.jsonl").write_text(line + "\n")
    done = run(checkpoint, "-o", tmp_path / "out", "--results", tmp_path / "results.jsonl")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert told in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_card_is_of_a_checkpoint_of_vlcli(checkpoint, tmp_path):
    done = run(checkpoint, "--to", "onnx", "-o", tmp_path / "out", "--license", "mit")
    assert done.returncode == 2
    assert "model card" in done.stderr
