"""Is one shard whole? Its headers, its end, and its count against everything that recorded it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson

from vlcli.errors import InputError
from vlcli.shards.findings import Verdict
from vlcli.shards.layout import (
    BLOCK,
    FOREIGN_IMAGE_EXTENSIONS,
    RECORD,
    SIDECAR_MARK,
    SUCCESS,
    sidecar_of,
    split_member,
    stats_of,
)
from vlcli.shards.reader import open_tar, read_json, read_sidecar, sidecar_metadata
from vlcli.shards.tar import Member, TarDamage, walk


@dataclass
class Recorded:
    """What stands beside a tar about it."""

    ours: bool = False  # the sidecar is one that `shard` wrote: its stricter promises hold
    counts: list[tuple[str, int]] = field(default_factory=list)  # (which file says so, samples)
    rows: list[dict[str, Any]] | None = None  # of the sidecar: key, status, and with --deep all columns
    manifest: dict[str, dict[str, Any]] = field(default_factory=dict)  # file name → its line

    @property
    def good(self) -> list[dict[str, Any]]:
        return [row for row in self.rows or () if row.get("status", SUCCESS) == SUCCESS]


@dataclass
class Found:
    """What a walk over a tar saw: complete samples in order with their members, and how it ended."""

    samples: list[tuple[str, dict[str, Member]]] = field(default_factory=list)
    partial: tuple[str, dict[str, Member]] | None = None  # the sample that a cut went through
    last: Member | None = None
    damage: TarDamage | None = None
    archive_end: int = 0  # offset of the end-of-archive blocks


def read_recorded(
    tar: Path, verdict: Verdict, *, sizes: dict[str, Any], manifest: dict[str, Any], deep: bool
) -> Recorded:
    """Read sidecar, stats, and what sizes.json and the manifest say; damage in them is a finding."""
    recorded = Recorded(manifest=manifest)
    sidecar, stats = sidecar_of(tar), stats_of(tar)
    if sidecar.exists():
        try:
            recorded.ours = SIDECAR_MARK in sidecar_metadata(sidecar)
            table = read_sidecar(sidecar)  # all of it, so that every page's checksum is verified
            if "key" not in table.column_names:
                raise InputError("it has no column 'key'", file=str(sidecar))
            named = [name for name in ("key", "status") if name in table.column_names]
            recorded.rows = (table if deep else table.select(named)).to_pylist()
            recorded.counts.append((sidecar.name, len(recorded.good)))
        except InputError as error:
            recorded.rows = None
            verdict.add("sidecar", sidecar, _bare(error, sidecar))
    if stats.exists():
        try:
            value = read_json(stats)
            recorded.counts.insert(0, (stats.name, int(value["successes"])))
            if recorded.rows is not None and "count" in value and value["count"] != len(recorded.rows):
                verdict.add(
                    "count", sidecar, f"{len(recorded.rows)} rows, but {stats.name} counts {value['count']}"
                )
        except InputError as error:
            verdict.add("stats", stats, _bare(error, stats))
        except (KeyError, TypeError, ValueError):
            verdict.add("stats", stats, "it has no whole number 'successes'")
    if tar.name in sizes:
        recorded.counts.append(("sizes.json", sizes[tar.name]))
    if tar.name in manifest:
        recorded.counts.append(("manifest.jsonl", manifest[tar.name]["samples"]))
    return recorded


def _bare(error: Exception, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def check_shard(tar: Path, verdict: Verdict, recorded: Recorded, *, lone: bool) -> Found | None:
    """Judge one tar without reading its data. Findings and notes go into `verdict`; None when it cannot be
    read.
    """
    try:
        fd = open_tar(tar)
    except OSError as error:
        verdict.add("unreadable", tar, error.strerror or str(error))
        return None
    try:
        found = _walk(tar, fd, verdict, recorded)
        verdict.shards += 1
        verdict.samples += len(found.samples)
        if found.damage is not None:
            _report_damage(tar, found, verdict, recorded)
        else:
            _check_counts(tar, found, verdict, recorded)
            _check_members(tar, found, verdict)
            _check_end(tar, os.fstat(fd).st_size, found, verdict, recorded)
    finally:
        os.close(fd)
    if lone and not recorded.counts:
        verdict.notes.append(
            f"{tar}: no sidecar, stats or sizes.json: its number of samples is compared with nothing"
        )
    return found


def _walk(tar: Path, fd: int, verdict: Verdict, recorded: Recorded) -> Found:
    """Group members into samples; names and types that no shard may hold are findings."""
    found = Found()
    key, members, seen = "", dict[str, Member](), set[str]()

    def close() -> None:
        if members:
            found.samples.append((key, members))

    try:
        for member in walk(fd):
            found.last = member
            parts = _judge_member(tar, member, verdict, recorded)
            if parts is None:
                continue
            if parts[0] != key:
                close()
                key, members = parts[0], {}
                if key in seen:
                    verdict.add(
                        "interleaved",
                        tar,
                        f"member {member.name}: other samples stand between it and the rest of sample {key}",
                        member.header,
                    )
                seen.add(key)
            if parts[1] in members:
                verdict.add("duplicate", tar, f"member {member.name} is there twice", member.header)
            members[parts[1]] = member
        close()
        found.archive_end = found.last.end if found.last else 0
    except TarDamage as damage:
        found.damage = damage
        if members and _is_complete(members, found, damage, recorded):
            close()
        elif members:
            found.partial = (key, members)
    return found


def _is_complete(members: dict[str, Member], found: Found, damage: TarDamage, recorded: Recorded) -> bool:
    """Whether the sample before the damage has all its members: as many kinds as the samples before it."""
    if found.samples:
        return set(members) >= set(found.samples[0][1])
    if recorded.ours:
        return len(members) == 3
    return damage.at_boundary  # nobody knows what the first sample of a foreign tar should have


def _judge_member(tar: Path, member: Member, verdict: Verdict, recorded: Recorded) -> tuple[str, str] | None:
    name = member.name
    if member.kind == "directory" and not recorded.ours:
        return None  # GNU tar adds them, and every reader passes over them
    if member.kind != "file":
        verdict.add("type", tar, f"member {name} is a {member.kind}, not a file", member.header)
        return None
    if name.startswith("/") or ".." in name.split("/"):
        verdict.add("name", tar, f"member {name} points out of the archive", member.header)
        return None
    parts = split_member(name)
    if recorded.ours:
        if parts is None or parts[1] not in (*FOREIGN_IMAGE_EXTENSIONS, "json", "txt"):
            verdict.add("foreign", tar, f"member {name} belongs to no sample", member.header)
            return None
        if not member.ours:
            verdict.add("header", tar, f"the header of {name} is not as it was written", member.header)
    return parts


def _report_damage(tar: Path, found: Found, verdict: Verdict, recorded: Recorded) -> None:
    """One finding for the place where the walk had to stop, with what it left of how many samples."""
    damage = found.damage
    assert damage is not None
    after = f"after member {found.last.name}" if found.last else "before the first member"
    # What a cut leaves, against the largest count that anything recorded: every record may be damaged too.
    expected = max((n for _, n in recorded.counts), default=None)
    seen = len(found.samples)
    if damage.code == "cut" and damage.at_boundary:
        place = f"(header boundary at byte {damage.offset})"
        if expected is None:
            text = f"no end-of-archive blocks {after} {place}: it may be cut there; {seen} samples are whole"
        elif seen == expected and found.partial is None:
            verdict.add(
                "end", tar, f"all {seen} samples, but no end-of-archive blocks {place}", damage.offset
            )
            return
        else:
            text = f"cut {after} {place}: {_of(seen, expected)} samples"
    elif damage.code == "end":
        text = f"{damage}: {_of(seen, expected)} samples are whole"
    else:
        text = f"{damage}, {after}: {_of(seen, expected)} samples are whole"
    verdict.add(damage.code, tar, text, damage.offset)


def _of(seen: int, expected: int | None) -> str:
    return f"{seen}" if expected is None else f"{seen} of {expected}"


def _check_end(tar: Path, size: int, found: Found, verdict: Verdict, recorded: Recorded) -> None:
    written = -(-(found.archive_end + 2 * BLOCK) // RECORD) * RECORD
    if size % BLOCK:
        verdict.add("size", tar, f"{size} bytes, no multiple of {BLOCK}: cut inside its last block", size)
    elif recorded.ours and size != written:
        verdict.add("size", tar, f"{size} bytes; with its end padding it had {written}", size)


def _check_members(tar: Path, found: Found, verdict: Verdict) -> None:
    """All samples have the same extensions; the first stands for the others."""
    if not found.samples:
        return
    usual = set(found.samples[0][1])
    for key, members in found.samples:
        if set(members) != usual:
            lacking = ", ".join(sorted(usual - set(members)))
            further = ", ".join(sorted(set(members) - usual))
            what = " and ".join(
                filter(None, [lacking and f"lacks {lacking}", further and f"has also {further}"])
            )
            verdict.add("members", tar, f"sample {key} {what}", min(m.header for m in members.values()))
            return


def _check_counts(tar: Path, found: Found, verdict: Verdict, recorded: Recorded) -> None:
    keys = [key for key, _ in found.samples]
    if recorded.ours and (late := next((b for a, b in pairwise(keys) if b <= a), None)):
        verdict.add("order", tar, f"sample {late} stands after a later one")
    if recorded.rows is not None:
        good, present = {row["key"] for row in recorded.good}, set(keys)
        if recorded.ours:
            _check_sidecar_keys(tar, [row["key"] for row in recorded.rows], verdict)
        for problem, some in (
            ("not in the tar", good - present),
            ("not among the sidecar's successes", present - good),
        ):
            if some:
                verdict.add("keys", tar, f"{len(some)} samples are {problem}, the first {min(some)}")
    wrong = [f"{file} says {count}" for file, count in recorded.counts if count != len(keys)]
    if wrong:
        verdict.add("count", tar, f"{len(keys)} samples, but {', '.join(wrong)}")
    for file in (tar, sidecar_of(tar)):
        line = recorded.manifest.get(file.name)
        if line is not None and file.exists() and file.stat().st_size != line["bytes"]:
            verdict.add("bytes", file, f"{file.stat().st_size} bytes, but the manifest says {line['bytes']}")


def _check_sidecar_keys(tar: Path, keys: list[str], verdict: Verdict) -> None:
    """Our sidecars have every row of the shard: keys without a gap, and of this shard."""
    if not keys:
        return
    digits = len(keys[0]) - len(tar.stem)
    first = int(tar.stem) * 10**digits if tar.stem.isdigit() and digits >= 0 else None
    if first is not None and int(keys[0]) != first:
        verdict.add("keys", sidecar_of(tar), f"its first key is {keys[0]}, that of another shard")
    for before, key in pairwise(keys):
        if int(key) != int(before) + 1:
            verdict.add("keys", sidecar_of(tar), f"key {key} follows {before}")
            return


def read_manifest(path: Path, verdict: Verdict) -> dict[str, dict[str, Any]]:
    """`_vlcli/manifest.jsonl` by file name; {} where there is none."""
    if not path.exists():
        return {}
    lines: dict[str, dict[str, Any]] = {}
    for number, raw in enumerate(path.read_bytes().splitlines(), 1):
        try:
            line = orjson.loads(raw)
            lines[line["name"]] = {k: line[k] for k in ("bytes", "samples", "sha256")}
        except (ValueError, KeyError, TypeError):
            verdict.add("manifest", path, f"line {number} is not an entry of a manifest")
    return lines
