"""Both towers of a dual encoder, with their projections, as ONNX graphs, proved on onnxruntime before they count.

image.onnx   pixels (batch, 3, size, size) float32, preprocessed → pooled (batch, d), or tokens (batch, n1, d)
text.onnx    ids (batch, length) int64, mask (batch, length) bool → pooled (batch, d), or tokens (batch, length, d) and
             content_mask (batch, length) bool
export.json  the checkpoint, its architecture (preprocessing in it), the scale of the softmax, what went in and out

All vectors have length 1. Scores are made of them outside: a matrix product of pooled vectors, late interaction of
tokens.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vlcli import __version__
from vlcli.errors import UsageError, VlcliError
from vlcli.models.checksums import write_checksums
from vlcli.models.dual import DualEncoder
from vlcli.records.atomic import write_json

if TYPE_CHECKING:
    import numpy as np

NEEDS = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
_IN_ONE_FILE = (
    1_900_000_000  # bytes of weights; a protobuf message has at most 2 GiB, beyond it weights lie beside
)


class _ImageGraph(nn.Module):
    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return _named(self.model.encode_image(pixels), ("pooled", "tokens"))


class _TextGraph(nn.Module):
    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        found = self.model.encode_text(ids, mask)
        return _named(found, ("pooled",) if found.tokens is None else ("tokens", "content_mask"))


def _named(features: Any, names: Sequence[str]) -> dict[str, Tensor]:
    values = {name: getattr(features, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def export(model: DualEncoder, directory: Path) -> dict[str, Any]:
    """Write the graphs of `model`, its tokenizer, export.json and SHA256SUMS into `directory` (made; the caller
    renames it into place). Returns what export.json says; `largest_difference` is between torch and onnxruntime.

    Raises UsageError where the extra `onnx` is not installed, VlcliError where onnxruntime gives other numbers.
    """
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        raise UsageError(
            f"ONNX needs {', '.join(missing)}, not installed", remedy="pip install 'vlcli[onnx]'"
        )
    directory.mkdir(parents=True, exist_ok=True)
    model = model.cpu().eval()
    batch = torch.export.Dim("batch")
    length = torch.export.Dim("length", min=2, max=model.config.text.context)
    graphs: dict[str, tuple[nn.Module, dict[str, Tensor], dict[str, Any], list[dict[str, Tensor]]]] = {
        "image": (_ImageGraph(model), _pictures(model, 2), {"pixels": {0: batch}}, _other_pictures(model)),
        "text": (
            _TextGraph(model),
            _texts(model, 2, 7),
            {"ids": {0: batch, 1: length}, "mask": {0: batch, 1: length}},
            _other_texts(model),
        ),
    }
    described: dict[str, Any] = {}
    for name, (graph, example, dynamic, others) in graphs.items():
        file = directory / f"{name}.onnx"
        with torch.no_grad(), _quiet():
            outputs = list(graph(**example))
            program = torch.onnx.export(
                graph,
                kwargs=example,
                input_names=list(example),
                output_names=outputs,
                dynamic_shapes=dynamic,
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            size = sum(p.numel() * p.element_size() for p in graph.parameters())
            program.save(str(file), external_data=size > _IN_ONE_FILE)
        described[name] = {
            "inputs": list(example),
            "outputs": outputs,
            "largest_difference": _prove(file, graph, outputs, [example, *others]),
        }
    result = {
        "checkpoint": model.checkpoint_hash,
        "architecture": model.config.model_dump(mode="json"),
        "scale": float(model.scale().detach()),
        **described,
        "versions": {"vlcli": __version__, "torch": torch.__version__},
    }
    write_json(directory / "export.json", result, force=True)
    model.tokenizer.save(directory)
    write_checksums(directory)
    return result


@torch.no_grad()
def _prove(file: Path, graph: nn.Module, outputs: list[str], inputs: list[dict[str, Tensor]]) -> float:
    """The largest difference between `graph` and the file on onnxruntime over all `inputs`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    worst = 0.0
    for given in inputs:
        expected = graph(**given)
        found: list[np.ndarray] = session.run(outputs, {name: x.numpy() for name, x in given.items()})
        for name, values in zip(outputs, found, strict=True):
            there, here = torch.from_numpy(values), expected[name]
            same = there.shape == here.shape and there.dtype == here.dtype
            difference = (there.double() - here.double()).abs().max().item() if same else float("inf")
            worst = max(worst, difference)
            if not difference <= TOLERANCE:  # NaN is not
                raise VlcliError(
                    f"{file.name}: {name} of onnxruntime differs by {difference:.2g} from torch's"
                )
    return worst


def _pictures(model: DualEncoder, count: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(count)
    return {"pixels": torch.randn(count, 3, model.image_size, model.image_size, generator=generator)}


def _texts(model: DualEncoder, count: int, length: int) -> dict[str, Tensor]:
    """Random ids between [CLS] and [SEP], of lengths from `length` down to 2."""
    generator = torch.Generator().manual_seed(length)
    length = min(length, model.config.text.context)
    ids = torch.randint(0, model.tokenizer.vocab_size, (count, length), generator=generator)
    mask = torch.zeros(count, length, dtype=torch.bool)
    for row in range(count):
        end = max(2, length - row)
        mask[row, :end] = True
        ids[row, 0], ids[row, end - 1], ids[row, end:] = (
            model.tokenizer.cls_id,
            model.tokenizer.sep_id,
            model.tokenizer.pad_id,
        )
    return {"ids": ids, "mask": mask}


def _other_pictures(model: DualEncoder) -> list[dict[str, Tensor]]:
    return [_pictures(model, 1), _pictures(model, 5)]


def _other_texts(model: DualEncoder) -> list[dict[str, Tensor]]:
    return [_texts(model, 1, 2), _texts(model, 3, model.config.text.context), _texts(model, 9, 11)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its progress on stdout, and warns of versions."""
    before = logging.root.manager.disable
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
