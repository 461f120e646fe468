"""The directory that the parts of a corpus share: whose it is, what stands in it, and who works on it.

kept/00000.jsonl  00001.jsonl  …  _vlcli/run.json  _vlcli/units/00000.json  …
counts/rows-00000/  part-00000/  …  merged/  _vlcli/run.json
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from vlcli import __version__
from vlcli.curation.ends import Source
from vlcli.errors import Incomplete, UsageError
from vlcli.records.atomic import sync_folder, write_json
from vlcli.records.lock import DirectoryLock
from vlcli.records.part import Part
from vlcli.records.sources import FORMATS, sources
from vlcli.records.units import Unit, known_by, shown

PRIVATE = "_vlcli"  # what is not promised byte for byte


def is_directory(output: str | None) -> bool:
    """Whether `-o` names a directory of units: it ends in a slash, or such a directory stands there."""
    return output is not None and (
        output.endswith("/") or os.path.isfile(os.path.join(output, PRIVATE, "run.json"))
    )


def is_counted(folder: Path, count: int) -> bool:
    """Whether all parts have counted all there is to count."""
    return all((folder / part_name(number)).is_dir() for number in range(count))


def description(
    command: str, rules: Any, source: Source, units: Sequence[Unit], **more: Any
) -> dict[str, Any]:
    """What has to be the same for all who write to one directory."""
    return {
        "version": __version__,
        "command": command,
        "rules": rules,
        "map": dict(source.renames),
        "image_root": str(source.image_root) if source.image_root is not None else None,
        **more,
        "inputs": [known_by(s.path) for s in sources(source.inputs) if s.path is not None],
        "units": [{**unit, "path": os.path.basename(unit["path"])} for unit in shown(units)],
    }


def claim(folder: Path, description: dict[str, Any], *, force: bool = False) -> None:
    """Make the directory this run's, or go on in one that is. Raises UsageError for one that is another's."""
    run = folder / PRIVATE / "run.json"
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", remedy="parts go to a directory")
    if force and run.exists():
        for path in [*folder.glob("[0-9]*.*"), *folder.glob(f"{PRIVATE}/units/*.json"), run]:
            if path.suffix.removeprefix(".") in (*FORMATS, "json"):
                path.unlink()
    if not run.exists():
        if folder.is_dir() and any(path.name != PRIVATE for path in folder.iterdir()):
            raise UsageError(f"{folder} is not empty, and no run into it stands there", remedy="name another")
        (folder / PRIVATE / "units").mkdir(parents=True, exist_ok=True)
        with suppress(UsageError):  # another part was faster; it is compared with what that says
            write_json(run, description, force=False)
    compare(run, description, str(folder))


def compare(run: Path, description: dict[str, Any], what: str) -> None:
    stands = orjson.loads(run.read_bytes())
    now = orjson.loads(orjson.dumps(description))
    for key in description:
        if stands.get(key) != now[key]:
            then = f": {stands.get(key)} then, {now[key]} now"
            shown_as = then if key in ("version", "command", "parts", "format") else ""
            raise UsageError(
                f"{what}: it was made with other {key}{shown_as}",
                remedy="give the same input, rules and parts, or name another directory",
            )


def part_name(number: int) -> str:
    return f"part-{number:05}"


def rows_name(number: int) -> str:
    return f"rows-{number:05}"


def remove_leftovers(folder: Path | None, units: Sequence[int]) -> None:
    """What a run that was killed has begun of these units."""
    if folder is None or not folder.is_dir():
        return
    mine = {f"{unit:05}" for unit in units}
    for path in folder.glob(".*.tmp"):
        if path.name[1:].partition(".")[0] in mine:
            path.unlink(missing_ok=True)


def mark(folder: Path, unit: int) -> Path:
    return folder / PRIVATE / "units" / f"{unit:05}.json"


def rows_before(folder: Path, part: Part) -> tuple[Path, list[Path]]:
    """What this part has numbered, and what those before it have."""
    require(folder, part.count, rows_name, "")
    return folder / rows_name(part.number), [folder / rows_name(n) for n in range(part.number)]


def require(folder: Path, count: int, name: Callable[[int], str], option: str) -> None:
    missing = [str(n) for n in range(count) if not (folder / name(n)).is_dir()]
    if missing:
        raise Incomplete(
            f"{option}{folder}: {len(missing)} of {count} parts are not counted yet, the first is {missing[0]}",
            remedy=f"run --count-only with --part {missing[0]}/{count}",
        )


@contextmanager
def appearing(parent: Path, name: str) -> Iterator[Path]:
    """A directory that takes its name when the block ends well; another that was faster, with the same, stays."""
    folder = parent / f".{name}.{secrets.token_hex(8)}.tmp"
    folder.mkdir()
    try:
        yield folder
        for path in folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        with suppress(OSError):
            os.replace(folder, parent / name)
        if not (parent / name).is_dir():
            raise RuntimeError(f"{parent / name}: the directory could not be named")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sync_folder(parent)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Raises UsageError where another process works on the same part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = DirectoryLock(path, what)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
