"""Results as lines of a file: each measured once, with all that it was measured on and with.

A line is the object that a command prints with --json, and beside it `key`, `command`, `run`, `recipe`, `settings`
and `versions`. `settings` are all that the numbers depend on; `key` is their hash. Lines are only ever added, each by
one write under a lock, so that many processes may share a file. What a killed process left of a line is told and cut
off by the next that writes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from vlcli.errors import InputError, UsageError

START = b'{"key":"'  # of every line
# What stands in a line beside the result itself.
BESIDE = ("key", "command", "run", "recipe", "settings", "versions")


def key_of(settings: Mapping[str, Any]) -> str:
    """16 hex over settings, in whatever order they stand."""
    return hashlib.sha256(orjson.dumps(settings, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def digest(value: Any) -> str:
    """12 hex over anything that JSON can say: templates, names of classes, labels."""
    return hashlib.sha256(orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)).hexdigest()[:12]


def settings_of(
    model: Any,
    table: Any,
    *,
    command: str,
    prompts: Any = None,
    labels: Any = None,
    column: str | None = None,
    pictures: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """All that a number depends on: the model, the data, `prompts` (a PromptSet), `labels` (a LabelSet) for the values
    of `column` (and for `difficult` ones), `pictures` (its `pictures_hash`), and whatever a command adds; what is None
    was not asked for and is left out."""
    found = {
        "command": command,
        "checkpoint": model.checkpoint_hash,
        "similarity": model.similarity_kind,
        "preprocess": model.config.image.preprocess.model_dump(mode="json"),
        "split_hash": table.split_hash,
        "prompts": None if prompts is None else digest(prompts.templates),
        "labels": None if labels is None else digest(labels.names),
        "values": None if column is None else values_of(table, column),
        "pictures": pictures,
        **more,
    }
    return {name: value for name, value in found.items() if value is not None}


def values_of(table: Any, column: str) -> str:
    """12 hex over what a table's rows are labelled with."""
    values = table.frame[column].to_list()
    difficult = table.frame["difficult"].to_list() if "difficult" in table.frame.columns else []
    return digest([values, difficult] if any(difficult) else values)


def provenance(run: str, place: Path | None) -> dict[str, Any]:
    """`run`, `recipe` and `versions` of a line. Runs of one recipe that differ in nothing but the seed share
    `recipe.same`; a foreign checkpoint has no recipe, nor have files that are scored (`place` None)."""
    from vlcli import __version__

    if place is None:
        return {"run": run, "recipe": None, "versions": {"vlcli": __version__}}
    import torch

    recipe = None
    with suppress(OSError, ValueError, KeyError, TypeError):
        said = orjson.loads((place / "config.json").read_bytes())["recipe"]
        train = dict(said["train"])
        seed = train.pop("seed")
        recipe = {"name": said["name"], "seed": seed, "same": digest({**said, "train": train})}
    versions = {"vlcli": __version__, "torch": torch.__version__}
    return {"run": run, "recipe": recipe, "versions": versions}


def result_in(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line without what stands beside its result."""
    return {name: value for name, value in line.items() if name not in BESIDE}


def average_settings(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the average over languages depends on, from what each language's numbers depend on."""
    first = next(iter(settings.values()))
    same = ("command", "checkpoint", "similarity")
    return {
        **{name: first[name] for name in same},
        "average": {lang: key_of(one) for lang, one in settings.items()},
    }


def average_line(sweep: Mapping[str, Any]) -> dict[str, Any]:
    """The average of a sweep as a result of its own, of the language "average"."""
    results = sweep["langs"]
    shared = {
        name: value if all(one[name] == value for one in results) else None
        for name, value in results[0].items()
        if name in ("checkpoint", "data", "split", "split_hash", "similarity", "labels", "n", "images")
    }
    return {
        **shared,
        "lang": "average",
        "langs": [one["lang"] for one in results],
        "average": sweep["average"],
    }


def sweep_of(stored: Sequence[Any]) -> dict[str, Any]:
    """A sweep as it was printed, from its lines, of which the last is the average; nothing was encoded for it."""
    *langs, average = stored
    head = {name: average[name] for name in ("checkpoint", "similarity")}
    alone = sum(one.get("images", one.get("n")) for one in langs)
    encoded = {"images": 0, "images_one_by_one": alone, "texts": 0}
    return {**head, "langs": langs, "average": average["average"], "encoded": encoded}


def read_results(
    paths: Sequence[str | Path], *, say: Callable[[str], None] = lambda line: None
) -> list[dict[str, Any]]:
    """The lines of results files, of equal keys the last. A last line that was cut short is told and left out.

    Raises UsageError for a file that is not there, InputError for a line that is no result.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None
        lines, rest = _lines(data)
        for number, line in lines:
            row = _parse(line)
            if row is None:
                raise InputError("not a line of results", file=str(path), line=number)
            found.pop(row["key"], None)
            found[row["key"]] = row
        if rest:
            say(f"{path}: its last line was cut short and is left out")
    return list(found.values())


class ResultsFile:
    """`find(settings)` gives a stored result, `add` stores one."""

    def __init__(self, path: Path, *, say: Callable[[str], None] = lambda line: None) -> None:
        """The file may not be there yet. Raises InputError for a line in it that is no result, UsageError where it
        cannot be written, before anything is measured."""
        self.path, self._say = path, say
        self._found = {line["key"]: line for line in read_results([path])} if path.exists() else {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}", remedy="results cannot be kept there") from None

    def find(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The result that was measured with these settings, as it was printed then."""
        line = self._found.get(key_of(settings))
        return None if line is None else result_in(line)

    def add(
        self,
        settings: Mapping[str, Any],
        result: Mapping[str, Any],
        beside: Mapping[str, Any],
        *,
        force: bool = False,
    ) -> None:
        """Append a line, unless its key stands there already and `force` is not given."""
        settings = dict(settings)
        head = {"key": key_of(settings), "command": settings["command"]}
        row = {**head, **result, **beside, "settings": settings}
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            with open(file, "rb", closefd=False) as whole:
                lines, rest = _lines(whole.read())
            size = os.fstat(file).st_size
            if rest:
                size -= len(rest)
                self._say(f"{self.path}: its last line was cut short and is removed")
                os.ftruncate(file, size)
            known = {found["key"] for _, line in lines if (found := _parse(line)) is not None}
            if row["key"] not in known or force:
                line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
                needs_end = size and os.pread(file, 1, size - 1) != b"\n"
                _append(file, (b"\n" if needs_end else b"") + line, size)
        finally:
            os.close(file)
        self._found[row["key"]] = row


def _lines(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """(number, line) of each that is not empty, and what there is of one that was cut short."""
    lines = [(number, line) for number, line in enumerate(data.split(b"\n"), start=1) if line.strip()]
    cut = bool(lines) and not data.endswith(b"\n") and _parse(lines[-1][1]) is None
    if cut and START.startswith(lines[-1][1].replace(b" ", b"")[: len(START)]):  # else it is somebody's own
        return lines[:-1], lines[-1][1]
    return lines, b""


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = orjson.loads(line)
    except ValueError:
        return None
    named = ("key", "command", "checkpoint", "similarity", "lang", "run")
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in named):
        return None
    return (
        row
        if isinstance(row.get("settings"), dict) and row.keys() >= {"data", "split", "split_hash"}
        else None
    )


def _append(file: int, data: bytes, at: int) -> None:
    """All of it or nothing."""
    try:
        done = os.pwrite(file, data, at)
        while done < len(data):
            done += os.pwrite(file, data[done:], at + done)
        os.fsync(file)
    except OSError:
        os.ftruncate(file, at)
        raise
