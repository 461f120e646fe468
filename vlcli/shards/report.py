"""The report of `shard`: what came, what became of it, and numbers by which to see whether anything was lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from vlcli import __version__
from vlcli.curation import tally
from vlcli.records.bad import BadRows
from vlcli.shards.contents import Contents, of_sidecar
from vlcli.shards.dataset import Totals
from vlcli.shards.output import OutputDirectory
from vlcli.shards.reader import read_sidecar


def build_report(
    totals: Totals, bad: BadRows, output: OutputDirectory, *, inputs: Sequence[str], head: int | None
) -> dict[str, Any]:
    """Keys are stable. The checksums of what is stored are taken from the shards as they stand on the disk."""
    stored, failed = Contents(), Counter[str]()
    for shard in totals.committed:
        sidecar = output.path / shard.sidecar.name
        contents = of_sidecar(sidecar)
        assert contents is not None, f"{sidecar} is not ours"
        stored.merge(contents)
        failed.update(read_sidecar(sidecar, ["status"])["status"].to_pylist())
    rows = tally.Totals(bad.seen, totals.samples, 0, bad.count)
    return {
        "command": "shard",
        "options": output.options.recorded(),
        "inputs": list(inputs) or ["-"],
        "head": head,
        "rows": rows.shown(),
        "statuses": dict(sorted(failed.items())),
        "shards": totals.shards,
        "bytes": totals.bytes,
        "image_format": totals.extension,
        "checksum": {
            "came": {
                "of": "rows as (image_id, texts) as they came, in any order",
                "count": totals.rows,
                "value": totals.came.hex(),
            },
            **stored.shown(),
        },
        "versions": {"vlcli": __version__},
    }
