"""What a report calls models and data sets, and what it says of how a number was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vlcli.evaluation.report.generated import Line, judged_by


class Names:
    """What models and data sets are called: as short as tells them apart."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = {line["key"]: line for line in lines}
        self._short = Counter(name for name, _ in {(_run(line), line["checkpoint"]) for line in lines})
        # a language's texts have a hash of their own, and so have the classes of its images
        sets = {(data_of(line), line["lang"], line["command"], line["split_hash"]) for line in lines}
        self._data = Counter(one[:-1] for one in sets)

    def model(self, line: Line) -> str:
        name = _run(line)
        return name if self._short[name] == 1 else f"{name} {line['checkpoint'][:8]}"

    def data(self, line: Line) -> str:
        """The data set, its split and the language of its texts; of classes their names' set and number."""
        return " · ".join(part for part in self.parts(line) if part)

    def parts(self, line: Line) -> tuple[str, ...]:
        """Of what `data` is made, by how much each tells of it; what there is not is empty."""
        lang = "" if line["lang"] == "none" else line["lang"]
        classes = f"{line['classes']} classes" if "labels" in line else ""
        return self.set_of(line), lang, line.get("labels", ""), classes

    def set_of(self, line: Line) -> str:
        """The data set and its split."""
        name = data_of(line)
        alone = self._data[name, line["lang"], line["command"]] == 1
        return name if alone else f"{name} {line['split_hash'][:6]}"


def _run(line: Line) -> str:
    """runs/lit-filip and runs/lit-filip/best are lit-filip; runs/lit-filip/checkpoints/step-00001000 has its step."""
    parts = [part for part in Path(line["run"]).parts if part not in ("best", "last", "checkpoints", "/")]
    step = parts.pop() if len(parts) > 1 and parts[-1].startswith("step-") else ""
    return " ".join([parts[-1] if parts else line["run"], *([step] if step else [])])


def data_of(line: Line) -> str:
    name = "+".join(Path(part).name.split(".")[0] or part for part in str(line["data"] or "").split())
    split = str(line["split"] or "")
    return name if split.startswith("sha256:") or split in name else f"{name} {split}"


def protocol_of(line: Line) -> str | None:
    """What told the classes: a protocol that learns, or a classifier of `finetune`; None where their names did."""
    return line.get("protocol") or ("classifier" if line["lang"] == "none" else None)


def said_of(line: Line) -> tuple[str, ...]:
    """The columns WITH of a line; the prompts with what else was asked for, and without the language, which tells
    columns apart and not rows."""
    prompts = line.get("prompts") or judged_by(line) or "none"
    if (lang := line.get("lang")) and prompts.endswith(f".{lang}"):
        prompts = prompts.removesuffix(lang) + "{lang}"
    settings = line["settings"]
    if line.get("protocol") or line.get("task") == "simlex":
        prompts = f"features {'before' if line['features'] == 'pre' else 'behind'} the projection"
    if line.get("protocol") == "knn":
        prompts += f", {line['k']} neighbours"
    if line.get("protocol") == "few-shot":
        prompts += f", {line['shots']} shots"
    if settings.get("ensemble") == "probability":
        prompts += ", mean of probabilities"
    if rerank := line.get("rerank"):
        prompts += f", the best {rerank['k']} ranked anew"
        prompts += "" if rerank["score"] == "match" else f" ({rerank['score'].replace('+', ' + ')})"
    if settings.get("precision", "fp32") != "fp32":
        prompts += f", {settings['precision']}"
    return line["checkpoint"], line["similarity"], prompts
