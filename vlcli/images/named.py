"""The picture that a command line names: one that is not there is a slip of the hand, not damage."""

from __future__ import annotations

from pathlib import Path

from vlcli.errors import MissingImage, UsageError
from vlcli.images.resolve import ImageReader
from vlcli.records.references import is_relative, is_url, split_container


def named_picture(reference: str, reader: ImageReader) -> bytes:
    """The encoded picture of a reference. UsageError where there is none, InputError for one that cannot be read."""
    if not (reference.startswith("data:") or is_url(reference)):
        container = split_container(reference)
        path = Path(container[0] if container is not None else reference)
        if is_relative(reference) and reader.root is not None:
            path = reader.root / path
        if not path.is_file():
            raise UsageError(f"{path}: {'is a directory' if path.is_dir() else 'no such file'}")
    try:
        return reader.read(reference)
    except MissingImage as error:
        raise UsageError(str(error)) from None
