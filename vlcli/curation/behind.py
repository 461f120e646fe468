"""What comes behind the rules: selections among the rows that pass, and translations of what is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vlcli.curation.piecework import Job
from vlcli.curation.plan import Plan
from vlcli.curation.selections import Selections
from vlcli.curation.translating import Translation
from vlcli.records.references import Relocator


@dataclass(frozen=True)
class Behind:
    """What is done with the rows that all rules have let pass, before they are written."""

    selections: Selections = field(default_factory=Selections)
    translation: Translation | None = None

    @property
    def is_empty(self) -> bool:
        return not self.selections.chain() and self.translation is None

    def fingerprint(self) -> dict[str, Any]:
        """For the lineage, beside that of the rules."""
        translated = self.translation.fingerprint() if self.translation is not None else {}
        return self.selections.fingerprint() | translated

    def table(self) -> list[dict[str, str]]:
        """For the plan."""
        return [*self.selections.table(), *(self.translation.table() if self.translation is not None else ())]

    def job(
        self, plan: Plan, renames: Mapping[str, str], lines: Relocator | None, rejects: Relocator | None
    ) -> Job:
        """What workers are told: rows that something is done with stay batches, and are no lines yet."""
        chosen = bool(self.selections.chain())
        return Job(
            plan,
            dict(renames),
            lines if self.is_empty else None,
            rejects,
            came=chosen and rejects is not None,
        )


NOTHING = Behind()
