"""Results as the files of other tools, one for each result.

`clip-benchmark`: what `clip_benchmark eval` writes and its `build` gathers; shares of 1. `mteb`: a TaskResult; a task
for each direction of retrieval, whose main score is the hit rate at 1 (MTEB's own tasks have nDCG@10, which a results
line does not hold).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vlcli.errors import UsageError
from vlcli.evaluation.report.generated import Line
from vlcli.evaluation.report.names import Names, protocol_of
from vlcli.records.atomic import write_json

KS = (1, 5, 10)
# ISO 639-3 and script, as MTEB names languages.
LANGUAGES = {
    "en": "eng-Latn",
    "zh": "zho-Hans",
    "es": "spa-Latn",
    "fr": "fra-Latn",
    "ru": "rus-Cyrl",
    "ar": "ara-Arab",
    "ja": "jpn-Jpan",
    "ko": "kor-Hang",
    "it": "ita-Latn",
    "de": "deu-Latn",
    "cs": "ces-Latn",
    "pl": "pol-Latn",
    "tr": "tur-Latn",
}


def clip_benchmark(line: Line, names: Names) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file name, object) of a result, in the keys of CLIP_benchmark 1.6."""
    if "top1" in line:
        kinds = {None: ("zeroshot_classification", ""), "linear-probe": ("linear_probe", "lp_")}
        if protocol_of(line) not in kinds:
            return  # it has neither neighbours nor regressions
        task, prefix = kinds[protocol_of(line)]
        metrics = {
            f"{prefix}acc1": line["top1"] / 100,
            f"{prefix}acc5": line["top5"] / 100,
            f"{prefix}mean_per_class_recall": line["mean_per_class"] / 100,
        }
    elif line["command"] == "retrieve" and line["MR"] is not None:
        task = "zeroshot_retrieval"
        metrics = {}
        for side, name in (("t2i", "image_retrieval_recall"), ("i2t", "text_retrieval_recall")):
            if line[side] is not None:
                metrics |= {f"{name}@{k}": line[side][f"R@{k}"] / 100 for k in KS}
    else:
        return
    data, model = names.set_of(line), names.model(line)
    yield (
        f"{data}_{line['checkpoint']}_{line['lang']}_{task}_{line['key']}",
        {
            "dataset": data,
            "model": model,
            "pretrained": line["checkpoint"],
            "task": task,
            "metrics": metrics,
            "language": line["lang"],
        },
    )


def mteb(line: Line, names: Names) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file name, object) of each task that MTEB would make of a result."""
    data = "".join(part[:1].upper() + part[1:] for part in re.split(r"[^\w]+", names.set_of(line)))
    found: list[tuple[str, dict[str, Any], str]] = []
    if "top1" in line and protocol_of(line) is None:
        found.append((f"{data}ZeroShot", {"accuracy": line["top1"] / 100}, "accuracy"))
    elif line["command"] == "retrieve":
        for side, name in (("i2t", "I2T"), ("t2i", "T2I")):
            if line[side] is not None:
                scores = {f"hit_rate_at_{k}": line[side][f"R@{k}"] / 100 for k in KS}
                found.append((f"{data}{name}Retrieval", scores, "hit_rate_at_1"))
    split = "test" if str(line["split"]).startswith("sha256:") else str(line["split"])
    for task, scores, main in found:
        entry = {
            **scores,
            "main_score": scores[main],
            "hf_subset": line["lang"],
            "languages": [LANGUAGES.get(line["lang"], line["lang"])],
        }
        yield (
            f"{line['checkpoint']}_{task}_{line['key']}",
            {
                "dataset_revision": line["split_hash"],
                "task_name": task,
                "mteb_version": None,
                "scores": {split: [entry]},
                "evaluation_time": None,
                "kg_co2_emissions": None,
            },
        )


FORMATS: dict[str, Callable[[Line, Names], Iterator[tuple[str, dict[str, Any]]]]] = {
    "clip-benchmark": clip_benchmark,
    "mteb": mteb,
}


def write_foreign(lines: Sequence[Line], format: str, folder: Path, *, force: bool = False) -> int:
    """A file in `folder` for each result that the format has a place for; how many. Averages have none.

    Raises UsageError where a file exists, and where there is nothing to write.
    """
    names = Names(lines)
    count = 0
    for line in lines:
        if line["lang"] == "average":
            continue
        for name, value in FORMATS[format](line, names):
            safe = re.sub(r"[^\w.+-]+", "-", name)
            write_json(folder / f"{safe}.json", value, force=force)
            count += 1
    if not count:
        raise UsageError(f"--format {format} has no place for any of these results")
    return count
