"""A tar's headers, walked strictly.

Python's tarfile, webdataset and GNU tar take a header that is cut off, zeroed or broken as the end of the
archive and report nothing. Here the archive ends where its two zero blocks stand, with only zeros after them,
and nowhere else.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from vlcli.shards.layout import BLOCK, own_member

_MAX_EXTENSION = 1 << 20  # a pax or GNU long-name header is a few hundred bytes; never read a forged gigabyte
_ZERO = bytes(BLOCK)
_WINDOW = 8 * BLOCK  # read at once: behind an image's header those of its json and txt, and the next image's


class Member(NamedTuple):
    name: str
    header: int  # offset of its first header block (a pax or long-name extension included)
    data: int  # offset of its bytes
    size: int
    kind: str  # "file", "directory", or what it is that no shard may hold: "link", "device", …
    ours: bool = False  # its header is, byte for byte, the one that `shard` writes

    @property
    def end(self) -> int:
        """Offset of the next header."""
        return self.data + self.size + (-self.size % BLOCK)


class TarDamage(ValueError):
    """The archive is not whole. `code`: cut, header, hole, end; `offset`: where, in bytes.

    `at_boundary`: nothing is torn, the file just ends where a header would begin.
    """

    def __init__(self, code: str, offset: int, message: str, *, at_boundary: bool = False) -> None:
        super().__init__(message)
        self.code, self.offset, self.at_boundary = code, offset, at_boundary


def _kind(info: tarfile.TarInfo) -> str:
    if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
        return "file"
    if info.isdir():
        return "directory"
    if info.issym() or info.islnk():
        return "link"
    return "device" if info.isdev() else f"type {info.type!r}"


def _pax_records(data: bytes) -> dict[str, str]:
    """`length key=value\\n`, repeated; raises ValueError for anything else."""
    records, position = {}, 0
    while position < len(data) and data[position]:
        space = data.index(b" ", position)
        length = int(data[position:space])
        record = data[space + 1 : position + length]
        if length <= 0 or not record.endswith(b"\n"):
            raise ValueError("a pax record without its end")
        key, _, value = record[:-1].partition(b"=")
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        position += length
    return records


def _check_end(fd: int, offset: int, size: int) -> None:
    """Everything from the zero block at `offset` on must be zeros, at least two blocks of them."""
    position = offset
    while chunk := os.pread(fd, 1 << 20, position):
        rest = chunk.lstrip(b"\0")
        if rest:
            where = position + len(chunk) - len(rest)
            raise TarDamage("hole", offset, f"zeros from byte {offset} on, but data again at byte {where}")
        position += len(chunk)
    if size - offset < 2 * BLOCK:
        raise TarDamage("end", offset, f"cut inside the end-of-archive blocks (byte {size})")


def walk(fd: int) -> Iterator[Member]:
    """The members of the archive open as `fd`, in order, each with its header and bytes inside the file.

    Reads headers only, by position (`os.pread`). Raises TarDamage at the first thing that is not whole; a
    walk that ends without it has seen the end-of-archive blocks.
    """
    size = os.fstat(fd).st_size
    offset = 0
    start: int | None = None  # where the extension headers of the member to come began
    name, length = None, None
    window, at = b"", 0
    while True:
        if not at <= offset <= at + len(window) - BLOCK:
            window, at = os.pread(fd, _WINDOW, offset), offset
        block = window[offset - at : offset - at + BLOCK]
        if len(block) < BLOCK:
            if not block:
                cause = f"ends at byte {offset}, a header boundary, without end-of-archive blocks"
                raise TarDamage("cut", offset, cause, at_boundary=True)
            raise TarDamage("cut", offset, f"cut inside the header at byte {offset}")
        if block == _ZERO:
            _check_end(fd, offset, size)
            if start is not None:
                raise TarDamage("header", start, f"an extension header at byte {start} without its member")
            return
        pending = start is not None or name is not None or length is not None
        if not pending and (own := own_member(block)) is not None:
            member = _inside(Member(own[0], offset, offset + BLOCK, own[1], "file", ours=True), size)
            yield member
            offset = member.end
            continue
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.TarError as error:
            raise TarDamage("header", offset, f"broken header at byte {offset} ({error})") from None
        header = offset if start is None else start
        data = offset + BLOCK
        if info.type in (
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
        ):
            if not 0 <= info.size <= _MAX_EXTENSION:
                raise TarDamage("header", offset, f"extension header of {info.size} bytes at byte {offset}")
            extension = os.pread(fd, info.size, data)
            if len(extension) < info.size:
                raise TarDamage("cut", offset, f"cut inside the extension header at byte {offset}")
            if info.type == tarfile.GNUTYPE_LONGNAME:
                name = extension.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif info.type == tarfile.XHDTYPE:
                try:
                    records = _pax_records(extension)
                    length = int(records["size"]) if "size" in records else length
                except ValueError:
                    raise TarDamage("header", offset, f"broken pax header at byte {offset}") from None
                name = records.get("path", name)
            start = None if info.type == tarfile.XGLTYPE else header
            offset = data + info.size + (-info.size % BLOCK)
            continue
        kind = _kind(info)
        # Only files carry bytes; a link's size field, where a writer filled it, counts nothing.
        info_size = (
            (info.size if length is None else length) if kind not in ("link", "directory", "device") else 0
        )
        member = Member(info.name if name is None else name, header, data, info_size, kind)
        if info_size < 0:
            raise TarDamage("header", offset, f"negative size in the header at byte {offset}")
        yield _inside(member, size)
        offset, start, name, length = member.end, None, None, None


def _inside(member: Member, size: int) -> Member:
    """The member, if the file of `size` bytes has all of it. Raises TarDamage."""
    if member.end > size:
        what = "data" if member.data + member.size > size else "padding"
        # The header that says how long it is stands right before its bytes.
        place = f"the {what} of {member.name} (header at byte {member.data - BLOCK})"
        raise TarDamage("cut", member.data - BLOCK, f"cut inside {place}")
    return member
