"""Names, keys and tar headers of the shard layout that img2dataset, open_clip and DataComp share.

    out/00000.tar  00000.parquet  00000_stats.json  …  sizes.json  _vlcli/manifest.jsonl  _vlcli/run.json

A tar holds `KEY.EXT`, `KEY.json`, `KEY.txt` for every sample, contiguous and in that (alphabetical) order. A
key is the shard's number followed by the row's number in the shard, so keys of failed rows are simply absent
from the tar. The bytes are those of `webdataset.TarWriter(stream, mtime=0, encoder=False)`: a contract test
compares them.
"""

from __future__ import annotations

import functools
import os
import re
import tarfile
from pathlib import Path
from typing import Any, Protocol

BLOCK = 512
RECORD = 20 * BLOCK  # tar pads an archive to whole records
SHARD_DIGITS = 5
PER_SHARD = 10_000

SIZES = "sizes.json"
PRIVATE = "_vlcli"  # what is never promised byte for byte: times, command line, plan
MANIFEST, RUN, COMMITTED = f"{PRIVATE}/manifest.jsonl", f"{PRIVATE}/run.json", f"{PRIVATE}/committed.jsonl"
LOCK = f"{PRIVATE}/lock"
PART_JOURNALS = "part-*.jsonl"  # in PRIVATE, one of each part of a job array
RETRIED = f"{PRIVATE}/retried"  # shards made again, until they take the place of the old ones

# What may stand in a tar as an image: the extensions that open_clip's loader takes.
IMAGE_EXTENSIONS = ("jpg", "png", "webp")
# The same, as other writers spell it; read, never written.
FOREIGN_IMAGE_EXTENSIONS = (*IMAGE_EXTENSIONS, "jpeg", "gif", "bmp", "tiff", "avif")

SUCCESS, UNAVAILABLE, UNDECODABLE = "success", "failed_to_download", "failed_to_resize"  # img2dataset's words

LAYOUT_VERSION = 1
SIDECAR_MARK = b"vlcli"  # key of the Parquet metadata by which `check` knows our own sidecars

_MEMBER = re.compile(r"^((?:.*/)?[^./][^.]*)\.([^/]+)$")
_OWN_FILE = re.compile(r"^(\d{5,}(\.tar|\.parquet|_stats\.json)|sizes\.json)$")
_OWN_TEMPORARY = re.compile(r"^\.((\d{5,})(\.tar|\.parquet|_stats\.json)|sizes\.json)\.[0-9a-f]+\.tmp$")


class Writable(Protocol):
    def write(self, data: bytes, /) -> Any: ...


def shard_name(number: int) -> str:
    """Shard 7 → "00007"."""
    return f"{number:0{SHARD_DIGITS}d}"


def key_digits(per_shard: int) -> int:
    """Digits of a row's number in its shard: ⌈log10(per_shard)⌉."""
    return len(str(per_shard - 1)) if per_shard > 1 else 0


def sample_key(shard: int, row: int, per_shard: int) -> str:
    """Row 5 of shard 1 at 10,000 a shard → "000010005", the rule of img2dataset's downloader."""
    digits = key_digits(per_shard)
    return f"{shard * 10**digits + row:0{SHARD_DIGITS + digits}d}"


def split_member(name: str) -> tuple[str, str] | None:
    """ "a/000.seg.png" → ("a/000", "seg.png"): the key ends at the basename's first dot, as in every reader.

    None for names that readers skip: without an extension, hidden, or webdataset's `__meta__`.
    """
    name = name.removeprefix("./")
    match = _MEMBER.match(name)
    if match is None or name.startswith("__"):
        return None
    return match.group(1), match.group(2).lower()


def member_header(name: str, size: int) -> bytes:
    """The one 512-byte USTAR header that a member of this name and size has in our shards."""
    if len(name) > 100 or not name.isascii() or not 0 <= size < 8**11:
        return _tarfile_header(name, size)
    # The same by hand: tarfile takes a tenth of the time that packing a small picture does.
    before, between, after, total = _template()
    named, digits = name.encode(), b"%011o" % size
    checksum = b"%06o\0 " % (total + sum(named) + sum(digits))
    return b"".join((named, bytes(100 - len(named)), before, digits, between, checksum, after))


def own_member(header: bytes) -> tuple[str, int] | None:
    """Name and size of a header that is one of ours, byte for byte; None for any other."""
    named, digits = header[:100].rstrip(b"\0"), header[124:135]
    if (
        not named
        or b"\0" in named
        or not named.isascii()
        or not digits.isdigit()
        or b"8" in digits
        or b"9" in digits
    ):
        return None
    name, size = named.decode(), int(digits, 8)
    return (name, size) if member_header(name, size) == header else None


@functools.cache
def _template() -> tuple[bytes, bytes, bytes, int]:
    """Of every header of ours: what stands between its name, its size, its checksum and its end, and the sum
    of that.
    """
    block = _tarfile_header("x", 0)
    before, between, after = block[100:124], block[135:148], block[156:]
    return before, between, after, sum(before + between + b" " * 8 + after)


def _tarfile_header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, 0, 0o444
    info.uname = info.gname = "bigdata"  # webdataset's default, so that both writers give the same bytes
    return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")


def write_member(file: Writable, name: str, data: bytes) -> int:
    """Append one member; returns the bytes it takes."""
    file.write(member_header(name, len(data)))
    file.write(data)
    padding = -len(data) % BLOCK
    file.write(bytes(padding))
    return BLOCK + len(data) + padding


def end_archive(file: Writable, size: int) -> int:
    """Two zero blocks, padded to a whole record, after `size` bytes of members; returns the archive's
    size.
    """
    total = -(-(size + 2 * BLOCK) // RECORD) * RECORD
    file.write(bytes(total - size))
    return total


def is_shard_file(name: str) -> bool:
    """Whether `--force` may remove this name from an output directory: only what `shard` itself writes."""
    return _OWN_FILE.match(name) is not None or is_leftover(name)


def is_leftover_of(name: str, shards: range) -> bool:
    """Whether it is one of a file of these shards."""
    match = _OWN_TEMPORARY.match(name)
    return match is not None and match.group(2) is not None and int(match.group(2)) in shards


def is_leftover(name: str) -> bool:
    """Whether a run that was killed left this: a file that never got its final name."""
    return _OWN_TEMPORARY.match(name) is not None


def sidecar_of(tar: str | os.PathLike[str]) -> Path:
    return Path(tar).with_suffix(".parquet")


def stats_of(tar: str | os.PathLike[str]) -> Path:
    path = Path(tar)
    return path.with_name(f"{path.stem}_stats.json")


def find_tars(directory: str | os.PathLike[str]) -> list[Path]:
    """The plain tars of a directory, by name."""
    return sorted(path for path in Path(directory).iterdir() if path.suffix == ".tar" and path.is_file())


def is_shard_directory(path: str | os.PathLike[str]) -> bool:
    path = Path(path)
    return path.is_dir() and (bool(find_tars(path)) or (path / SIZES).exists() or (path / PRIVATE).is_dir())
