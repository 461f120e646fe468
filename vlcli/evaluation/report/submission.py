"""ELEVATER's submission: one object a set, of `zeroshot --predictions-as elevater`, gathered into one archive."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from vlcli.errors import InputError, UsageError
from vlcli.records.atomic import atomic_file

INSIDE = "all_predictions.json"
FIELDS = (
    "model_name",
    "dataset_name",
    "num_trainable_params",
    "num_params",
    "num_visual_params",
    "num_backbone_params",
    "n_shot",
    "rnd_seeds",
    "predictions",
)


def write_submission(files: Sequence[str | Path], archive: str | Path, *, force: bool = False) -> list[str]:
    """The names of the sets, in the order of `files`; each file is held alone.

    Raises UsageError for a file that is not there, for two of one set and for files of several models, InputError for
    one that is no prediction.
    """
    sets: dict[str, Path] = {}
    models: dict[str, Path] = {}
    with (
        atomic_file(archive, force=force) as raw,
        zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as packed,
        packed.open(INSIDE, "w", force_zip64=True) as out,
    ):
        out.write(b'{"data":[')
        for number, file in enumerate(map(Path, files)):
            content, found = _read(file)
            name, model = found["dataset_name"], found["model_name"]
            if name in sets:
                raise UsageError(f"{sets[name]} and {file} are both of {name}")
            sets[name] = file
            models.setdefault(model, file)
            if len(models) > 1:
                one, other = models.items()
                raise UsageError(f"{one[1]} is of {one[0]}, {other[1]} of {other[0]}: one model a submission")
            out.write((b"," if number else b"") + content.strip())
        out.write(b"]}")
    return list(sets)


def _read(file: Path) -> tuple[bytes, dict[str, Any]]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InputError(f"not JSON: {error}", file=str(file)) from None
    missing = [field for field in FIELDS if not isinstance(found, dict) or field not in found]
    if missing:
        raise InputError(
            f"no prediction of ELEVATER's: it has no {missing[0]}",
            file=str(file),
            remedy="zeroshot --predictions FILE --predictions-as elevater writes one",
        )
    return content, found
