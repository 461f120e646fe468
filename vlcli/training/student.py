"""The student of teacher learning: its architecture as the recipe and the teacher say, its weights where it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vlcli.errors import UsageError
from vlcli.models.config import TextEncoderConfig, TextTowerConfig
from vlcli.models.initial import find_weights, tokenizer_for
from vlcli.models.initial_text import load_text_tower
from vlcli.models.initialise import load_head
from vlcli.models.text_encoder import TextEncoder
from vlcli.training.teacher import Teacher


def student_of(text: TextTowerConfig, weights: str | None) -> tuple[TextTowerConfig, Path | None]:
    """The tower and where it starts, of `--student`: random, a directory of transformers or a run of ours.

    A directory of transformers says which encoder it is, whatever the recipe names. Raises UsageError for weights that
    are not there.
    """
    found = find_weights(text, weights, option="--student ")
    if found is None or not found.is_dir() or not (found / "config.json").is_file():
        return text, found
    from vlcli.models.initial import checkpoint_of

    if checkpoint_of(found) is not None:
        return text, found
    said: dict[str, Any] = text.model_dump(exclude_defaults=True)
    for key in ("encoder", "width", "layers", "heads", "vocabulary", "padding_id"):
        said.pop(key, None)
    said |= {"kind": "transformers", "name": str(found), "tokenizer": "init", "dropout": text.dropout}
    try:
        return TextTowerConfig.model_validate(said), found
    except ValueError as error:
        raise UsageError(f"--student {found}: {_first_line(error)}") from error


def _first_line(error: ValueError) -> str:
    from vlcli.models.checkpoint import first_problem

    return first_problem(error)


def refuse_width(text: TextTowerConfig, teacher: Teacher) -> None:
    """UsageError unless a state of the student is as wide as a vector of the teacher."""
    if text.output_width != teacher.width:
        own = "the student's" if text.head is None else "the student's head gives"
        raise UsageError(
            f"the vectors of the teacher {teacher.name} have {teacher.width} dimensions, {own} {text.output_width}",
            remedy=f"--set model.text.head.width={teacher.width}",
        )


def new_student(text: TextTowerConfig, weights: Path | None, teacher: Teacher) -> TextEncoder:
    """The student before its first step, with the teacher's projection where that has one."""
    own = teacher.projection
    config = TextEncoderConfig(
        text=text,
        dim=None if own is None else own.out_features,
        projection_bias=own is not None and own.bias is not None,
    )
    student = TextEncoder(config, tokenizer_for(text, weights))
    if weights is not None:
        load_text_tower(student.text, weights, text.name or "the student")
        if student.text_head is not None and weights.is_dir():
            load_head(student.text_head, weights)
    if own is not None and student.text_projection is not None:
        with torch.no_grad():
            student.text_projection.weight.copy_(own.weight)
            if own.bias is not None:
                student.text_projection.bias.copy_(own.bias)
    return student
