"""What a foreign format is to `convert` and `load`, and what passes through their hands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from vlcli.errors import InputError
from vlcli.models.adapters.names import Placed, Row, UnplacedError, listed, to_ours, to_theirs
from vlcli.models.adapters.source import Source
from vlcli.models.config import DualEncoderConfig, ImageTowerConfig
from vlcli.models.dual import DualEncoder
from vlcli.text.model_tokenizers import ModelTokenizer

BESIDE_TOWERS = ("ranking.", "patch_mask")  # how the names of tensors begin that no dual encoder has


class CannotExpress(ValueError):
    """Why a format has no place for a model; becomes a usage error."""


@dataclass
class Checkpoint:
    """A dual encoder as data: its architecture, its tensors under our names, its tokenizer; `notes` for the user."""

    config: DualEncoderConfig
    state: dict[str, Tensor]
    tokenizer: ModelTokenizer
    notes: list[str] = field(default_factory=list)

    @cached_property
    def model(self) -> DualEncoder:
        """The model without memory: for its shapes and layers."""
        with torch.device("meta"):
            return DualEncoder(self.config)


@dataclass
class TowerCheckpoint:
    """An image tower alone, its tensors under timm's names."""

    config: ImageTowerConfig
    state: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Asked:
    """What the user said beside the path, because a format does not carry it. `towers_only` leaves out what is no part
    of a dual encoder."""

    tokenizer: str | None = None
    similarity: str | None = None
    towers_only: bool = False


@dataclass
class Files:
    """A model in a foreign format, to be written: JSON files and safetensors by name, or `torch`, the object of the one
    torch file. Notes say where the format's fixed ways differ a little."""

    json: dict[str, dict[str, Any]] = field(default_factory=dict)
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    torch: Any = None
    tokenizer: ModelTokenizer | None = None
    length: int = 0  # tokens of a text
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Format:
    """A foreign format. `recognises` looks at the names of the tensors and the files beside them.

    `suffix`: of the one file it is; "" for a directory. `express` raises CannotExpress where the format has no place
    for something of a model.
    """

    name: str
    title: str
    suffix: str
    recognises: Callable[[Source], bool]
    read: Callable[[Source, Asked], Checkpoint | TowerCheckpoint]
    express: Callable[[Any], Files]


def place(
    rows: Sequence[Row],
    source: Source,
    format: str,
    *,
    known: Sequence[str] = (),
    state: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The source's tensors under our names. Raises UnplacedError naming those that no row knows."""
    placed = to_ours(rows, source.state if state is None else state, known=known)
    _refuse(placed, f"{format} has no place for", f"{format} wants beside the others", str(source.weights))
    return placed.state


def place_back(rows: Sequence[Row], checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Our tensors under a format's names. CannotExpress where there are more than it has names for."""
    placed = to_theirs(rows, checkpoint.state)
    if placed.unplaced:
        raise CannotExpress(f"it has no name for {listed(placed.unplaced)}")
    return placed.state


def _refuse(placed: Placed, unplaced: str, incomplete: str, file: str) -> None:
    if placed.unplaced:
        raise UnplacedError(unplaced, placed.unplaced, file=file)
    if placed.incomplete:
        raise UnplacedError(incomplete, sorted(placed.incomplete), file=file)


def built(
    source: Source, architecture: Mapping[str, Any], state: dict[str, Tensor], tokenizer: ModelTokenizer
) -> Checkpoint:
    """A checkpoint whose tensors are exactly those of its architecture. InputError for anything else."""
    file = str(source.weights)
    try:
        config = DualEncoderConfig.model_validate(architecture)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InputError(f"no model of ours: {where}: {problem['msg']}", file=file) from error
    checkpoint = Checkpoint(config, state, tokenizer)
    refuse_misfit(checkpoint, file)
    return checkpoint


def towers_alone(checkpoint: Checkpoint) -> Checkpoint:
    """The same model without what is no part of a dual encoder; what stays behind is among its notes."""
    config = checkpoint.config.model_copy(update={"ranking": None, "patch_mask": False})
    state = {name: x for name, x in checkpoint.state.items() if not name.startswith(BESIDE_TOWERS)}
    left = len(checkpoint.state) - len(state)
    notes = [f"the ranking part stays behind: {left} tensors"] if left else []
    return Checkpoint(config, state, checkpoint.tokenizer, [*checkpoint.notes, *notes])


def refuse_misfit(checkpoint: Checkpoint, file: str) -> None:
    """InputError unless tensors and tokenizer fit the architecture."""
    refuse_shapes(checkpoint.model.state_dict(), checkpoint.state, file)
    rows, pieces = checkpoint.config.text.vocabulary, checkpoint.tokenizer.vocab_size
    if pieces > rows:
        raise InputError(f"the tokenizer has {pieces:,} tokens, the embedding table {rows:,} rows", file=file)


def refuse_shapes(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], file: str) -> None:
    """InputError unless the tensors are those of an architecture, in name and shape."""
    if missing := sorted(expected.keys() - found.keys()):
        raise UnplacedError("the architecture wants", missing, file=file)
    if extra := sorted(found.keys() - expected.keys()):
        raise UnplacedError("the architecture has no place for", extra, file=file)
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            raise InputError(
                f"{name} has the shape {tuple(found[name].shape)}, not {tuple(tensor.shape)}", file=file
            )
