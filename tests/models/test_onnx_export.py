"""onnxruntime gives the numbers of the model for any batch and any length; a graph that does not is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny_models_for_checkpoints import tiny_model

from vlcli.errors import UsageError, VlcliError
from vlcli.models import onnx_export
from vlcli.models.checksums import read_checksums, sha256_of
from vlcli.models.onnx_export import TOLERANCE, export
from vlcli.text.wordpiece import WordPiece

TEXTS = ["狐狸", "一只棕色的狐狸跳过一条懒狗", "", "a quick brown fox"]
VIT = {"name": "test_vit", "preprocess": {"size": 64}}


def run(file: Path, outputs: list[str], **inputs: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(str(file)).run(outputs, inputs)


@pytest.fixture(scope="module")
def pooled(tmp_path_factory):
    """A global model, exported; batches beyond what the exporter groups texts by."""
    torch.manual_seed(0)
    model, place = tiny_model("global", image=VIT), tmp_path_factory.mktemp("onnx") / "out"
    model.checkpoint_hash = "0123456789abcdef"
    return model, place, export(model.eval(), place)


@torch.no_grad()
def test_pooled_vectors(pooled):
    model, place, _ = pooled
    for count in (1, 7):
        pixels = torch.randn(count, 3, 64, 64)
        (found,) = run(place / "image.onnx", ["pooled"], pixels=pixels.numpy())
        np.testing.assert_allclose(found, model.encode_image(pixels).pooled.numpy(), atol=TOLERANCE)
    for texts in (TEXTS[:1], TEXTS, TEXTS * 40):
        ids, mask = model.tokenize(texts)
        (found,) = run(place / "text.onnx", ["pooled"], ids=ids.numpy(), mask=mask.numpy())
        np.testing.assert_allclose(found, model.encode_text(ids, mask).pooled.numpy(), atol=TOLERANCE)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_the_directory_stands_alone(pooled):
    model, place, result = pooled
    assert json.loads((place / "export.json").read_text()) == result
    assert result["checkpoint"] == "0123456789abcdef"
    assert result["architecture"] == model.config.model_dump(mode="json")
    assert result["scale"] == pytest.approx(1 / 0.07)
    assert result["image"]["outputs"] == result["text"]["outputs"] == ["pooled"]
    assert 0 <= result["image"]["largest_difference"] <= TOLERANCE
    assert WordPiece.load(place).pieces == model.tokenizer.pieces
    listed = dict(read_checksums(place))
    assert set(listed) == set(place.iterdir()) - {place / "SHA256SUMS"}
    assert all(sha256_of(file) == digest for file, digest in listed.items())
    for name, axes in (
        ("image", {"pixels": ["batch", 3, 64, 64]}),
        ("text", {name: ["batch", "length"] for name in ("ids", "mask")}),
    ):
        graph = onnx.load(place / f"{name}.onnx").graph
        shapes = {
            i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in graph.input
        }
        assert shapes == axes


def test_the_exporter_says_nothing(capfd, tmp_path, monkeypatch):
    """Reduced tokens of a convolutional tower, with the masks that late interaction wants; weights beside the graph."""
    monkeypatch.setattr(onnx_export, "_IN_ONE_FILE", 0)
    torch.manual_seed(1)
    model = tiny_model("reduced", image={"name": "test_efficientnet", "preprocess": {"size": 64}}).eval()
    result = export(model, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert (tmp_path / "image.onnx.data").stat().st_size > (tmp_path / "image.onnx").stat().st_size
    ids, mask = model.tokenize(TEXTS)
    pixels = torch.randn(3, 3, 64, 64)
    assert result["text"]["outputs"] == ["tokens", "content_mask"]
    tokens, content = run(
        tmp_path / "text.onnx", ["tokens", "content_mask"], ids=ids.numpy(), mask=mask.numpy()
    )
    (image,) = run(tmp_path / "image.onnx", ["tokens"], pixels=pixels.numpy())
    with torch.no_grad():
        text = model.encode_text(ids, mask)
        np.testing.assert_allclose(tokens, text.tokens.numpy(), atol=TOLERANCE)
        np.testing.assert_array_equal(content, text.content_mask.numpy())
        np.testing.assert_allclose(image, model.encode_image(pixels).tokens.numpy(), atol=TOLERANCE)


def test_other_numbers_are_an_error(pooled, monkeypatch):
    model, place, _ = pooled
    graph = onnx_export._ImageGraph(model)
    inputs = [onnx_export._pictures(model, 2)]
    assert onnx_export._prove(place / "image.onnx", graph, ["pooled"], inputs) <= TOLERANCE
    other = onnx_export._ImageGraph(tiny_model("global", image=VIT).eval())
    with pytest.raises(VlcliError, match=r"image\.onnx: pooled of onnxruntime differs by"):
        onnx_export._prove(place / "image.onnx", other, ["pooled"], inputs)


def test_what_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "NEEDS", ("onnx", "no_such_package"))
    with pytest.raises(
        UsageError, match=r"needs no_such_package, not installed; pip install 'vlcli\[onnx\]'"
    ):
        export(tiny_model(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
