"""What comes behind the rules: selections among the rows that pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vlcli.curation.piecework import Job
from vlcli.curation.plan import Plan
from vlcli.curation.selections import Selections
from vlcli.records.references import Relocator


@dataclass(frozen=True)
class Behind:
    """What is done with the rows that all rules have let pass, before they are written."""

    selections: Selections = field(default_factory=Selections)

    @property
    def is_empty(self) -> bool:
        return not self.selections.chain()

    def fingerprint(self) -> dict[str, Any]:
        """For the lineage, beside that of the rules."""
        return self.selections.fingerprint()

    def table(self) -> list[dict[str, str]]:
        """For the plan."""
        return self.selections.table()

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
