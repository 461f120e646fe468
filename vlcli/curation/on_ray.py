"""`filter` on a Ray cluster: the parts of a corpus as tasks of Ray Data, writing what a job array would write.

All nodes must see the same files under the same names. Counts stand in the output's `_vlcli/counts`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from vlcli.curation.behind import NOTHING, Behind
from vlcli.curation.ends import Source, Target
from vlcli.curation.found import Progress
from vlcli.curation.part_directory import PRIVATE, is_counted
from vlcli.curation.parts import count_part, filter_part
from vlcli.curation.plan import Plan
from vlcli.errors import UsageError
from vlcli.records.part import Part
from vlcli.records.sources import sources
from vlcli.records.units import plan_units

_PARTS_A_CORE = 4  # so that all cores have work until the end


def filter_on_ray(
    plan: Plan,
    source: Source,
    target: Target,
    *,
    behind: Behind = NOTHING,
    max_bad: str = "0",
    on_progress: Progress = lambda _, __: None,
) -> dict[str, Any]:
    """Filters into the directory `target.output`; returns the report of the whole.

    Joins the cluster that RAY_ADDRESS names, or starts Ray on this machine. Raises UsageError without Ray, and the
    first part's error where parts fail; what the others have written stands, and the same call goes on.
    """
    ray = _ray()
    assert target.output is not None
    output = Path(target.output)
    counts = output / PRIVATE / "counts"
    units = len(plan_units(sources(source.inputs), source.format))
    count = min(units, _PARTS_A_CORE * int(ray.cluster_resources().get("CPU", 1))) or 1
    run = counts / PRIVATE / "run.json"
    if run.exists():  # an earlier run has begun with as many
        count = int(orjson.loads(run.read_bytes())["parts"])
    here = os.getcwd()

    def on_part(work: Callable[[Part], int]) -> Callable[[dict[str, Any]], dict[str, Any]]:
        def task(row: dict[str, Any]) -> dict[str, Any]:
            os.chdir(here)
            try:
                return {"part": row["part"], "rows": work(Part(int(row["part"]), count)), "error": None}
            except Exception as error:
                return {"part": row["part"], "rows": 0, "error": error}

        return task

    def count_one(part: Part) -> int:
        done = [0]
        count_part(plan, source, counts, part, max_bad=max_bad, on_progress=lambda _, n: _add(done, n))
        return done[0]

    def filter_one(part: Part) -> int:
        done = [0]
        filter_part(
            plan,
            source,
            target,
            part,
            counts,
            behind=behind,
            max_bad=max_bad,
            on_progress=lambda _, n: _add(done, n),
        )
        return done[0]

    def over_parts(doing: str, work: Callable[[Part], int]) -> None:
        data = ray.data.from_items([{"part": i} for i in range(count)], override_num_blocks=count)
        failed = {}
        for row in data.map(on_part(work), num_cpus=1).iter_rows():
            on_progress(doing, int(row["rows"]))
            if row["error"] is not None:
                failed[int(row["part"])] = row["error"]
        if failed:
            raise failed[min(failed)]

    while not is_counted(counts, count):
        over_parts("counting", count_one)
    over_parts("filtering", filter_one)
    return orjson.loads((output / PRIVATE / "report.json").read_bytes())


def _add(total: list[int], rows: int) -> None:
    total[0] += rows


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise UsageError("--engine ray needs Ray", remedy="pip install 'vlcli[ray]'") from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not ray.is_initialized():
        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return ray
