"""`shard --parallel-text`: rows with a text a language in, sentence pairs in files out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlcli.errors import UsageError


def refuse_of_images(**given: Any) -> None:
    """UsageError for what is given of shards of images."""
    for name, value in given.items():
        if value:
            raise UsageError(
                f"--{name.replace('_', '-')} is about shards of images, not about --parallel-text"
            )


def write(
    inputs: list[str],
    out: Path,
    per_file: int,
    wanted: tuple[str | None, bool, str | None, int | None, int],
    reading: tuple[str | None, dict[str, str], int | None],
    told: tuple[str, Path | None, Path | None],
    *,
    force: bool,
    dry_run: bool,
    console: Any,
) -> None:
    """The options as typed → the mixture, written."""
    from vlcli.curation.parallel_mixture import ParallelMixture, parse_shares, write_mixture
    from vlcli.curation.parallel_text import NINE
    from vlcli.records.atomic import check_place, refuse_existing, write_json
    from vlcli.records.bad import BadRows
    from vlcli.records.reader import read, repeatable
    from vlcli.records.rejects import RejectsWriter
    from vlcli.text.translators import parse_languages

    languages, identity, mix, sample, seed = wanted
    format, renames, head = reading
    max_bad, rejects, report = told
    mixture = ParallelMixture(
        parse_languages(languages, "--languages") if languages is not None else NINE,
        identity,
        parse_shares(mix) if mix is not None else {},
        sample,
        seed,
    )
    if report is not None:
        check_place(report, force=force)
    if not force:
        refuse_existing(out)
    if dry_run:
        print(f"would write pairs in {', '.join(mixture.languages)} to {out}/")
        return
    named = repeatable(inputs) if mixture.chooses else inputs
    with RejectsWriter(rejects, force=force) as rejected:
        bad = BadRows(max_bad, rejected)
        found = write_mixture(
            mixture,
            lambda counter: read(named, format=format, renames=renames, head=head, bad=counter),
            out,
            per_file=per_file,
            bad=bad,
            force=force,
        )
    if report is not None:
        write_json(report, found | {"bad": bad.count}, force=force)
    for language, sources in found["taken"].items():
        console.note(f"  {language}: " + ", ".join(f"{name} {count:,}" for name, count in sources.items()))
    console.note(
        f"{out}: {found['written']:,} pairs of {found['rows']:,} rows, {found['repeated']:,} repeated,"
        f" {sum(found['empty'].values()):,} empty cells, {bad.count:,} bad rows, {found['files']:,} files"
    )
