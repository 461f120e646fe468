"""The slow half of `check`: every byte of a shard against what was recorded of it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import orjson

from vlcli.images.decode import load, rgb
from vlcli.images.probe import open_image
from vlcli.shards.check_shard import Found, Recorded
from vlcli.shards.findings import Verdict
from vlcli.shards.layout import FOREIGN_IMAGE_EXTENSIONS, sidecar_of
from vlcli.shards.reader import open_tar
from vlcli.shards.sidecar import FIXED_SCHEMA
from vlcli.shards.tar import Member


def check_deep(tar: Path, found: Found, recorded: Recorded, verdict: Verdict) -> None:
    """Images have the recorded sha256, or decode where none is recorded; json and txt parse, and agree with
    each other and the sidecar.

    A tar and a sidecar that have the sha256 which the manifest recorded are what `shard` wrote, byte for
    byte, and it had read each image to its end: nothing else needs to be looked at. Of a shard that another
    tool wrote, only what any reader needs is judged: its sha256 may be that of the image before it was
    encoded again.
    """
    changed = [file for file in (tar, sidecar_of(tar)) if not _is_recorded(file, recorded)]
    if recorded.ours and not changed:
        return
    rows = {row["key"]: row for row in recorded.good} if recorded.ours else {}
    fd = open_tar(tar)
    try:
        for key, members in found.samples:
            for problem, member in _sample_problems(fd, members, rows.get(key)):
                verdict.add("content", tar, f"member {member.name}: {problem}", member.data)
    finally:
        os.close(fd)
    for file in changed:
        if file.name in recorded.manifest and file.exists():
            verdict.add("sha256", file, "its bytes are not those that the manifest recorded")


def _is_recorded(file: Path, recorded: Recorded) -> bool:
    """Whether the manifest has the sha256 of the file's bytes."""
    line = recorded.manifest.get(file.name)
    return line is not None and file.exists() and _sha256(file) == line["sha256"]


def _sample_problems(
    fd: int, members: dict[str, Member], row: dict[str, Any] | None
) -> list[tuple[str, Member]]:
    problems: list[tuple[str, Member]] = []
    for extension, member in members.items():
        data = os.pread(fd, member.size, member.data)
        if extension in FOREIGN_IMAGE_EXTENSIONS:
            problem = _image_problem(data, row)
        elif extension == "json":
            problem = _json_problem(data, row)
        elif extension == "txt":
            problem = _text_problem(data, row)
        else:
            problem = None
        if problem:
            problems.append((problem, member))
    return problems


def _image_problem(data: bytes, row: dict[str, Any] | None) -> str | None:
    if row is not None:
        same = hashlib.sha256(data).hexdigest() == row["sha256"]
        return None if same else "not the image whose sha256 the sidecar has"
    try:
        image, format = open_image(data)
        rgb(load(image, format, at_least=(1, 1)).image, format)
    except ValueError as error:
        return str(error)
    return None


def _text_problem(data: bytes, row: dict[str, Any] | None) -> str | None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"not UTF-8 (byte {error.start})"
    if row is not None and text != row["caption"]:
        return "not the caption that the sidecar has"
    return None


def _json_problem(data: bytes, row: dict[str, Any] | None) -> str | None:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return f"not JSON ({error})"
    if not isinstance(value, dict):
        return "not a JSON object"
    if row is None:
        return None
    for name, recorded in row.items():
        key, is_fixed = "text" if name == "texts" else name, name in FIXED_SCHEMA
        if key not in value:  # the writer leaves out what has no value; the sidecar says null or []
            if recorded not in (None, [], "[]") or (is_fixed and name not in ("query", "text_candidates")):
                return f"it lacks {key}"
            continue
        said = value.pop(key)
        if name == "url":
            said = said or None
        if said != recorded and (is_fixed or _as_text(said) != recorded):
            return f"its {key} is not what the sidecar has"
    return f"its {min(value)} is in no sidecar" if value else None


def _as_text(value: Any) -> str:
    """How the sidecar keeps what fits no typed column."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
