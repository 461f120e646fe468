"""Pictures in a table of `id<TAB>base64` lines, as MUGE and Chinese-CLIP publish them."""

from __future__ import annotations

import base64
import binascii
import os

from vlcli.errors import InputError, MissingImage

_URLSAFE = bytes.maketrans(b"-_", b"+/")


class TsvIndex:
    """The pictures of such a table by id, found once by walking its lines; contents are read by offset.

    Both alphabets of base64 are read: MUGE's own files have the one for URLs. Raises InputError for a line without a
    tab and for an id that comes twice.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._spans: dict[
            str, tuple[int, int, int]
        ] = {}  # id → offset and size of its base64, number of its line
        self._file = open(path, "rb")  # noqa: SIM115 - kept until close
        try:
            start = 0
            for number, line in enumerate(self._file, start=1):
                content = line.rstrip(b"\r\n")
                tab = content.find(b"\t")
                if tab > 0:
                    name = content[:tab].decode("utf-8", "replace").removeprefix("\ufeff")
                    if name in self._spans:
                        raise InputError(f"image {name} for the second time", file=path, line=number)
                    self._spans[name] = (start + tab + 1, len(content) - tab - 1, number)
                elif content.strip():
                    raise InputError("no tab between the id and its image", file=path, line=number)
                start += len(line)
        except BaseException:
            self._file.close()
            raise

    @property
    def ids(self) -> list[str]:
        """In the order of the lines."""
        return list(self._spans)

    def __contains__(self, name: object) -> bool:
        return name in self._spans

    def get(self, name: str) -> bytes:
        """The bytes of a picture. MissingImage where the table has none of that id."""
        if name not in self._spans:
            raise MissingImage(f"no image {name}", file=self._path)
        offset, size, number = self._spans[name]
        content = os.pread(self._file.fileno(), size, offset)
        if len(content) != size:
            raise InputError("the file has changed since it was opened", file=self._path)
        content = content.translate(_URLSAFE).rstrip(b"=")
        try:
            return base64.b64decode(content + b"=" * (-len(content) % 4), validate=True)
        except binascii.Error as error:
            raise MissingImage(
                f"image {name}: damaged base64 ({error})", file=self._path, line=number
            ) from error

    def close(self) -> None:
        self._file.close()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
