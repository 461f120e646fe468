"""Which tensors a file of weights holds: names, types and shapes, and whether they are those of an architecture.

Nothing here imports torch: a header is read, and compared, in a moment.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

Layout = Mapping[str, tuple[str, tuple[int, ...]]]  # name → (type as safetensors names it, shape)

FLOATS = ("F64", "F32", "F16", "BF16")


def layout_stamp(architecture: Mapping[str, Any], layout: Layout) -> str:
    """16 hex over an architecture and the tensors that were written with it.

    config.json keeps it, so that whoever finds it unchanged knows, without building the model, that these are the
    tensors of this architecture.
    """
    tensors = sorted((name, kind, list(shape)) for name, (kind, shape) in layout.items())
    text = json.dumps([architecture, tensors], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def misfits(found: Layout, expected: Layout) -> list[str]:
    """A phrase for each tensor that a model of the layout `expected` cannot take from a file of the layout `found`.

    Any floating point type fits any other: it is converted.
    """
    missing = [f"tensor {name} is missing" for name in expected if name not in found]
    extra = [f"tensor {name} has no place in the architecture" for name in found if name not in expected]
    wrong = []
    for name in expected.keys() & found.keys():
        (kind, shape), (wanted, place) = found[name], expected[name]
        if shape != place:
            wrong.append(f"tensor {name} has shape {shape}, the architecture {place}")
        elif kind != wanted and not {kind, wanted} <= set(FLOATS):
            wrong.append(f"tensor {name} is of type {kind}, the architecture's of {wanted}")
    return [*missing, *extra, *sorted(wrong)]


def in_one_line(phrases: Sequence[str], most: int = 3) -> str:
    """The first phrases, and how many there are where that is not all."""
    shown = "; ".join(phrases[:most])
    return shown if len(phrases) <= most else f"{shown}; and {len(phrases) - most} more"


def piece_problem(pieces: int, rows: int, recorded: object = None) -> str | None:
    """What is wrong with a tokenizer of `pieces` pieces for an embedding table of `rows`; None when nothing is.

    A table may have rows to spare; a tokenizer that lost pieces shows against their `recorded` number.
    """
    if pieces > rows:
        return f"the tokenizer has {pieces:,} pieces, the embedding table {rows:,} rows"
    if isinstance(recorded, int) and pieces != recorded:
        return f"the tokenizer has {pieces:,} pieces, it was saved with {recorded:,}"
    return None
