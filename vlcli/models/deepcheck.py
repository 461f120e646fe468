"""What `check` says of a checkpoint with torch at hand: its tensors against the architecture, its weights' values."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from vlcli.errors import VlcliError
from vlcli.models.checkpoint import first_problem
from vlcli.models.config import CaptionerConfig, ClassifierConfig, DualEncoderConfig, TextEncoderConfig
from vlcli.models.diffusers_extra import MissingDiffusers
from vlcli.models.diffusion_config import DecoderConfig, PriorConfig
from vlcli.models.key_values_config import KeyValuesConfig
from vlcli.models.layout import FLOATS, Layout, misfits, piece_problem
from vlcli.models.storage import layout_of_architecture
from vlcli.shards.findings import Verdict
from vlcli.text.model_tokenizers import saved_tokenizer

_AT_ONCE = 1 << 24  # elements that are looked at together: memory does not grow with the tensor


def check_tokenizer(path: Path, config: dict[str, Any], table: tuple[int, ...], verdict: Verdict) -> None:
    """A finding where the tokenizer of the checkpoint `path` cannot be read, or does not fit the embedding table."""
    try:
        pieces = saved_tokenizer(path, padding_id=0).vocab_size
    except VlcliError as error:
        verdict.add("tokenizer", path, str(error).removeprefix(f"{path}: "))
        return
    if table and (problem := piece_problem(pieces, table[0], config.get("pieces"))):
        verdict.add("tokenizer", path, problem)


def check_architecture(path: Path, kind: str, architecture: Any, layout: Layout, verdict: Verdict) -> None:
    """One finding for each tensor of the weights of `path` that a model of `architecture` has not, or has otherwise."""
    try:
        expected = _expected(kind, json.dumps(architecture))
    except MissingDiffusers:  # which says nothing of the checkpoint
        raise
    except (ValidationError, VlcliError) as error:
        verdict.add("architecture", path / "config.json", f"architecture: {first_problem(error)}")
        return
    for misfit in misfits(layout, expected):
        verdict.add("architecture", path / "model.safetensors", misfit)


@lru_cache(maxsize=4)  # the checkpoints of a run have one architecture
def _expected(kind: str, architecture: str) -> Layout:
    schemas: dict[str, type[Any]] = {"text": TextEncoderConfig, "classifier": ClassifierConfig}
    schemas |= {"captioner": CaptionerConfig, "prior": PriorConfig, "decoder": DecoderConfig}
    schemas |= {"diffusion-kv": KeyValuesConfig}
    schema = schemas.get(kind, DualEncoderConfig)
    return layout_of_architecture(schema.model_validate(json.loads(architecture)))


def check_numbers(file: Path, layout: Layout, verdict: Verdict) -> None:
    """One finding for each tensor of floating point numbers in which some are not finite, and how many."""
    try:
        with safe_open(file, framework="pt", device="cpu") as weights:
            for name, (kind, _) in layout.items():
                if kind in FLOATS and (message := _not_finite(weights.get_tensor(name))):
                    verdict.add("number", file, f"tensor {name} has {message}")
    except SafetensorError as error:
        verdict.add("weights", file, str(error))


def _not_finite(tensor: torch.Tensor) -> str | None:
    nan = infinite = 0
    for part in tensor.flatten().split(_AT_ONCE):
        if not bool(part.isfinite().all()):
            nan += int(part.isnan().sum())
            infinite += int(part.isinf().sum())
    counts = [f"{count:,} {what}" for count, what in ((nan, "NaN"), (infinite, "infinite")) if count]
    return f"{' and '.join(counts)} of {tensor.numel():,} values" if counts else None
