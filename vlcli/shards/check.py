"""Judge directories of shards, and single tars, by what stands there and beside it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vlcli.errors import InputError
from vlcli.shards.check_deep import check_deep
from vlcli.shards.check_shard import check_shard, read_manifest, read_recorded
from vlcli.shards.findings import Verdict
from vlcli.shards.layout import MANIFEST, PRIVATE, SIZES, find_tars, is_leftover, sidecar_of, stats_of
from vlcli.shards.reader import read_json

OnShard = Callable[[Path], None]


def check_tar(path: Path, *, deep: bool = False, checksum: bool = False) -> Verdict:
    """One tar, against its sidecar, stats, sizes.json and the manifest where they stand beside it.

    `checksum`: what it holds, too (contents.py).
    """
    verdict = Verdict(str(path), "tar")
    sizes, manifest = directory_records(path.parent, verdict)
    _check_one(path, verdict, sizes, manifest, deep, lone=True)
    if checksum:
        _add_contents(path, verdict)
    return verdict


def check_rows(path: str) -> Verdict:
    """What a file of rows holds, or "-" for stdin. Raises InputError with the first thing that is wrong."""
    from vlcli.shards.contents import of_rows

    verdict = Verdict(path, "rows", contents=of_rows([path]))
    assert verdict.contents is not None
    verdict.samples = verdict.contents.rows
    return verdict


def check_directory(
    path: Path,
    *,
    deep: bool = False,
    checksum: bool = False,
    jobs: int = 1,
    on_shard: OnShard = lambda tar: None,
) -> Verdict:
    """All shards of a directory, `jobs` at a time, and whether any is missing.

    Findings stand in the order of the shards whatever `jobs` is. `checksum`: what they hold, too. Raises
    OSError when the directory cannot be listed.
    """
    verdict = Verdict(str(path), "shards")
    sizes, manifest = directory_records(path, verdict)
    tars = find_tars(path)

    def check(tar: Path) -> Verdict:
        on_shard(tar)
        one = Verdict(str(tar), "tar")
        _check_one(tar, one, sizes, manifest, deep, lone=False)
        if checksum:
            _add_contents(tar, one)
        return one

    # Threads: hashing and decoding, which take the time, leave Python to the others.
    with ThreadPoolExecutor(jobs, "check") as pool:
        try:
            for one in pool.map(check, tars):
                verdict.merge(one)
        finally:
            pool.shutdown(cancel_futures=True)  # a signal waits for the shards at hand and not for all
    check_names(path, tars, sizes, manifest, verdict)
    recorded = sizes or (path / PRIVATE).is_dir() or any(stats_of(tar).exists() for tar in tars)
    if tars and not recorded:
        verdict.notes.append(
            f"{path}: no sidecars, stats or {SIZES}: numbers of samples are compared with nothing"
        )
    if leftovers := [p.name for p in path.iterdir() if is_leftover(p.name)]:
        verdict.notes.append(
            f"{path}: {len(leftovers)} temporary files of a run that was killed, {leftovers[0]} first"
        )
    return verdict


def check_names(
    path: Path, tars: list[Path], sizes: dict[str, int], manifest: dict[str, dict[str, Any]], verdict: Verdict
) -> None:
    """Whether everything is there that belongs to a directory of shards; no shard is opened."""
    _check_sequence(path, tars, sizes, manifest, verdict)
    private = (path / PRIVATE).is_dir()
    if private and not (path / SIZES).exists():
        verdict.add(
            "unfinished",
            path,
            f"no {SIZES}: the run that wrote it did not come to its end (the same command again finishes it)",
        )
    committed = private or any(stats_of(tar).exists() for tar in tars)
    for tar in tars:
        if committed and not stats_of(tar).exists():
            verdict.add(
                "uncommitted", tar, f"no {stats_of(tar).name}: the run that wrote it did not finish it"
            )
        elif private and not sidecar_of(tar).exists():
            verdict.add("missing", tar, f"no {sidecar_of(tar).name} beside it")


def directory_records(path: Path, verdict: Verdict) -> tuple[dict[str, int], dict[str, dict[str, Any]]]:
    """What sizes.json and the manifest say, by file name; damage in them is a finding."""
    sizes: dict[str, int] = {}
    file = path / SIZES
    if file.is_file():
        try:
            for name, count in read_json(file).items():
                if not isinstance(count, int):
                    raise InputError(f"{name} is {count!r}, not a number of samples", file=str(file))
                sizes[name] = count
        except InputError as error:
            verdict.add("sizes", file, str(error).removeprefix(f"{file}: "))
    return sizes, read_manifest(path / MANIFEST, verdict)


def _check_one(
    tar: Path,
    verdict: Verdict,
    sizes: dict[str, int],
    manifest: dict[str, dict[str, Any]],
    deep: bool,
    *,
    lone: bool,
) -> None:
    try:
        recorded = read_recorded(tar, verdict, sizes=sizes, manifest=manifest, deep=deep)
        found = check_shard(tar, verdict, recorded, lone=lone)
        if deep and found is not None:
            check_deep(tar, found, recorded, verdict)
    except OSError as error:
        verdict.add("unreadable", error.filename or tar, error.strerror or str(error))


def _add_contents(tar: Path, verdict: Verdict) -> None:
    from vlcli.shards.contents import of_sidecar

    sidecar = sidecar_of(tar)
    try:
        verdict.contents = of_sidecar(sidecar) if sidecar.exists() else None
    except (InputError, OSError):
        return  # it is among the findings
    if verdict.contents is None:
        verdict.notes.append(f"{tar}: no sidecar of 'vlcli shard': it counts for nothing in the checksum")


def _check_sequence(
    path: Path, tars: list[Path], sizes: dict[str, int], manifest: dict[str, dict[str, Any]], verdict: Verdict
) -> None:
    """Shards that a record names, or whose neighbours are there, and that are not."""
    names = {tar.name for tar in tars}
    missing = {name for name in (*sizes, *manifest) if name.endswith(".tar")} - names
    missing |= {p.stem.removesuffix("_stats") + ".tar" for p in path.glob("[0-9]*_stats.json")} - names
    stems = [tar.stem for tar in tars if tar.stem.isdecimal()]
    if stems:
        numbers, width = sorted(int(stem) for stem in stems), len(stems[0])
        # A part of a data set may begin anywhere; ours begin at 0.
        first = 0 if (path / PRIVATE).is_dir() else numbers[0]
        expected = {f"{n:0{width}d}.tar" for n in range(first, numbers[-1])}
        if len(expected) <= 100 * len(numbers):  # names that are dates or hashes are no sequence
            missing |= expected - names
    for name in sorted(missing):
        verdict.add("missing", path / name, "no such shard, though others name it or stand around it")
    if sizes:
        for name in sorted(names - sizes.keys()):
            verdict.add("sizes", path / SIZES, f"it does not know {name}")
