"""What `check` says: findings, and the verdict over one path."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlcli.shards.contents import Contents


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `offset` is a byte position where there is one."""

    code: str
    file: str
    message: str
    offset: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"code": self.code, "file": self.file, "offset": self.offset, "message": self.message}


@dataclass
class Verdict:
    """`findings` is empty when the path is whole, as far as `notes` say that could be known."""

    path: str
    kind: str  # shards, tar, checkpoint, run
    shards: int = 0
    samples: int = 0
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    contents: Contents | None = None  # where they were asked for

    @property
    def status(self) -> str:
        """whole, damaged or unreadable."""
        if any(f.code != "unreadable" for f in self.findings):
            return "damaged"
        return "unreadable" if self.findings else "whole"

    def add(self, code: str, file: object, message: str, offset: int | None = None) -> None:
        self.findings.append(Finding(code, str(file), message, offset))

    def merge(self, part: Verdict) -> None:
        """Add what was found in a part of the path."""
        self.shards += part.shards
        self.samples += part.samples
        self.findings += part.findings
        self.notes += part.notes
        if self.contents is None:
            self.contents = part.contents
        elif part.contents is not None:
            self.contents.merge(part.contents)

    def to_dict(self) -> dict[str, Any]:
        checksum = {} if self.contents is None else {"checksum": self.contents.shown()}
        return {
            "path": self.path,
            "kind": self.kind,
            "status": self.status,
            "shards": self.shards,
            "samples": self.samples,
            "findings": [f.to_dict() for f in self.findings],
            "notes": self.notes,
            **checksum,
        }
