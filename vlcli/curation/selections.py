"""The selections that were asked for, in the order in which they apply.

What is held out comes first, so that a test set stays the same whatever is then taken of the rest, and the split last,
of what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlcli.curation.amount import Amount, parse_amount
from vlcli.curation.first_rows import First, FirstImages
from vlcli.curation.hold_out import HoldOut
from vlcli.curation.mixture import Mixture, Recipe, parse_mixture
from vlcli.curation.ratio_split import RatioSplit, Sides, parse_sides
from vlcli.curation.sample import Sample, Share
from vlcli.curation.selection import Selection
from vlcli.errors import UsageError


@dataclass(frozen=True)
class Selections:
    """`none()` where nothing was asked for. All values are parsed; None is what was not given."""

    hold_out: int | None = None
    first_images: int | None = None
    first: Amount | None = None
    sample: Amount | None = None
    mix: Recipe | None = None
    per_key: str | None = None
    split: Sides | None = None
    stratify: str | None = None
    seed: int = 0

    def __bool__(self) -> bool:
        return bool(self.fingerprint())

    def chain(self) -> list[Selection]:
        """The selections, in order."""
        found: list[Selection] = []
        if self.hold_out is not None:
            found.append(HoldOut(self.hold_out))
        if self.first_images is not None:
            found.append(FirstImages(self.first_images))
        if self.first is not None:
            found.append(First(self.first))
        if self.mix is not None:
            total = self.sample.number if self.sample is not None else None
            found.append(Mixture(self.mix, total, self.per_key))
        elif self.sample is not None:
            alone = self.sample.share is not None and self.per_key is None
            found.append(Share(self.sample) if alone else Sample(self.sample, self.per_key))
        if self.split is not None:
            found.append(RatioSplit(self.split, self.stratify))
        return found

    def fingerprint(self) -> dict[str, str]:
        """Each option that was given, as lineage and the plan have it."""
        given = {
            "hold-out": self.hold_out,
            "first-images": self.first_images,
            "first": self.first,
            "sample": self.sample,
            "mix": self.mix,
            "per-key": self.per_key,
            "split": self.split,
            "stratify": self.stratify,
        }
        found = {name: str(value) for name, value in given.items() if value is not None}
        if found.keys() & {"hold-out", "sample", "mix", "split"}:
            found["seed"] = str(self.seed)
        return found

    def table(self) -> list[dict[str, str]]:
        """For the plan: one line an option."""
        return [
            {"rule": name, "value": value, "from": f"--{name}"} for name, value in self.fingerprint().items()
        ]


def parse_selections(
    *,
    hold_out: int | None = None,
    first_images: int | None = None,
    first: str | None = None,
    sample: str | None = None,
    mix: str | None = None,
    per_key: str | None = None,
    split: str | None = None,
    stratify: str | None = None,
    seed: int = 0,
) -> Selections:
    """From options. Raises UsageError for values that are none, and for options that mean nothing together."""
    amount = parse_amount(sample, "--sample") if sample is not None else None
    if mix is not None and amount is not None and amount.share is not None:
        raise UsageError(
            f"--mix with --sample {sample}: a mixture takes a number of rows, or as many as can be"
        )
    if per_key is not None and sample is None and mix is None:
        raise UsageError(f"--per-key {per_key} says nothing alone", remedy="it goes with --sample or --mix")
    if stratify is not None and split is None:
        raise UsageError(f"--stratify {stratify} says nothing alone", remedy="it goes with --split")
    return Selections(
        hold_out,
        first_images,
        parse_amount(first, "--first") if first is not None else None,
        amount,
        parse_mixture(mix) if mix is not None else None,
        per_key,
        parse_sides(split) if split is not None else None,
        stratify,
        seed,
    )


def lines(told: dict[str, dict[str, Any]], limit: int = 12) -> Sequence[str]:
    """What the selections came to, a line each, from the report."""
    found = []
    for name, counts in told.items():
        rows = f"{name}: kept {counts['kept']:,} of {counts['seen']:,}"
        if "held_out" in counts:
            rows += f", held out {counts['held_out']:,}"
        if "images" in counts:
            rows += f", of {counts['images']:,} images"
        if "sides" in counts:
            rows += "; " + ", ".join(f"{side} {number:,}" for side, number in counts["sides"].items())
        elif len(counts.get("by_value", ())) in range(1, limit + 1):
            rows += "; " + ", ".join(map(_value, counts["by_value"]))
        if "seed" in counts:
            rows += f"; seed {counts['seed']}"
        if counts.get("short"):
            who = f"{counts['short']:,} values have" if "values" in counts else "there are"
            rows += f"; {who} fewer than the {int(counts['asked']):,} asked for"
        if counts.get("replaced"):
            rows += f"; {counts['replaced']:,} rows had another split, which is replaced"
        found.append(rows)
    return found


def _value(line: dict[str, Any]) -> str:
    keys = " ".join(str(line[name]) for name in line if name not in ("of", "taken"))
    return f"{keys} {line['taken']:,} of {line['of']:,}"
