"""The curves of a run, drawn from its metrics.jsonl: one figure however often the run was stopped and resumed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from vlcli.errors import InputError, UsageError
from vlcli.figures.canvas import kind_of, plain_settings, render
from vlcli.figures.fonts import find_fonts
from vlcli.records.atomic import atomic_file, check_place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS, CURVES = "metrics.jsonl", "curves.png"
INK, QUIET = "#1a1a1a", "#8a8a8a"
COLORS = ("#2f6690", "#b23a48", "#5b8c5a", "#a66f00", "#6b4c9a", "#3d8b8b", "#8c6d5b", "#4f6d7a")
DOTS = 60  # a line of more points is a line alone
SCORES = {  # as `train.best` names them
    "MR": "mean recall",
    "i2t.R@1": "image→text R@1",
    "t2i.R@1": "text→image R@1",
    "zeroshot.top1": "zero-shot top-1",
    "zeroshot.top5": "zero-shot top-5",
    "zeroshot.mean_per_class": "zero-shot, mean per class",
    "R@1": "mean R@1",
    "auc": "AUC",
    "cider_char": "CIDEr-D, characters",
    "cider_jieba": "CIDEr-D, jieba's words",
}

Points = Sequence[tuple[int, float]]


def write_curves(run: Path, target: Path | None = None, *, force: bool = True) -> Path:
    """Draw the curves of a run directory to `target`, or to its curves.png; returns where.

    Raises UsageError for a directory that is no run and for a target that cannot be, InputError for a metrics.jsonl
    that is damaged or empty, NoFont without what figures need.
    """
    target = target or run / CURVES
    kind = kind_of(target)
    check_place(target, force=force)
    figure = draw_curves(read_metrics(run), **_named(run))
    with atomic_file(target, force=force) as file:
        file.write(render(figure, kind))
    return target


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run; half a last line, of a process that was killed, is left out."""
    file = run / METRICS
    if not file.is_file():
        raise UsageError(f"{run}: no run, it has no {METRICS}")
    lines: list[dict[str, Any]] = []
    raw = file.read_bytes().split(b"\n")
    for number, line in enumerate(raw, start=1):
        if not line:
            continue
        try:
            found = orjson.loads(line)
            assert isinstance(found["step"], int)
        except (ValueError, KeyError, TypeError, AssertionError):
            if number == len(raw):
                break
            raise InputError("not a line of metrics", file=str(file), line=number) from None
        lines.append(found)
    if not any("loss" in line for line in lines):
        raise InputError("no step is logged yet", file=str(file))
    return lines


def _named(run: Path) -> dict[str, str]:
    """What the run is called and trained by, and the score that chooses its best checkpoint."""
    name, file = run.resolve().name, run / "recipe.toml"
    if not file.is_file():
        return {"title": name}
    recipe = tomllib.loads(file.read_text(encoding="utf-8"))
    size = recipe.get("data", {}).get("batch_size", "?")
    return {
        "title": f"{name}: {recipe.get('name', '')}, {size} pairs a step",
        "best": recipe.get("train", {}).get("best", ""),
    }


def draw_curves(lines: Sequence[Mapping[str, Any]], *, title: str = "", best: str = "") -> Figure:
    """Loss with the loss by chance, validation with a mark at the highest of the score `best`, temperature, learning
    rate, gradient norm, pairs per second."""
    fonts = find_fonts()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with plain_settings():
        figure = Figure(figsize=(13.5, 7.2), facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(2, 3).flat
        end = max(line["step"] for line in lines)
        _loss(next(panels), lines)
        _validation(next(panels), lines, best)
        _curves(next(panels), "temperature τ", {"": series(lines, "temperature")})
        _curves(next(panels), "learning rate", {"": series(lines, "lr")})
        _curves(next(panels), "gradient norm", {"": series(lines, "grad_norm")})
        _speed(next(panels), lines)
        for axes in figure.axes:
            axes.set_xlim(0, end * 1.02)
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
        for axes in figure.axes[3:6]:
            axes.set_xlabel("step")
        legible = "".join(c for c in title if fonts.covers(c))
        figure.suptitle(legible, fontproperties=fonts.properties(size=11), color=INK, x=0.01, ha="left")
    return figure


def series(lines: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    """(step, value) of a dotted name, where a line has it; the last one said of a step counts."""
    found: dict[int, float] = {}
    for line in lines:
        value: Any = line
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(value, (int, float)):
            found[line["step"]] = value
    return sorted(found.items())


def _validation(axes: Axes, lines: Sequence[Mapping[str, Any]], best: str) -> None:
    found = {name: series(lines, f"val.{name}") for name in SCORES}
    _curves(axes, "validation, ×100", {SCORES[name]: points for name, points in found.items() if points})
    if not found.get(best):
        return
    step, value = max(found[best], key=lambda point: (point[1], -point[0]))
    color = COLORS[[name for name in SCORES if found[name]].index(best)]
    axes.plot([step], [value], marker="o", markersize=7, markerfacecolor="none", color=color)
    late = step > max(line["step"] for line in lines) / 2
    axes.annotate(
        f"{value:.1f} at {step:,}", (step, value), xytext=(0, 7), textcoords="offset points",
        ha="right" if late else "left", fontsize=8, color=INK,
    )  # fmt: skip
    axes.margins(y=0.12)


def _loss(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    parts = {"loss": "loss", "image→text": "i2t_loss", "text→image": "t2i_loss", "validation": "val.loss"}
    found = {shown: series(lines, name) for shown, name in parts.items()}
    _curves(axes, "loss", {shown: points for shown, points in found.items() if points})
    chance = series(lines, "chance_loss")
    if chance:
        height = chance[-1][1]
        axes.axhline(height, color=QUIET, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(
            1, height, f"by chance, {height:.2f} ", transform=axes.get_yaxis_transform(), ha="right", va="bottom",
            fontsize=8, color=QUIET,
        )  # fmt: skip
    axes.set_ylim(0, 1.05 * max(value for points in (*found.values(), chance) for _, value in points))


def _speed(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    points = series(lines, "pairs_per_second")
    _curves(axes, "pairs/s", {"": points})
    axes.set_ylim(0, 1.1 * max((value for _, value in points), default=1.0))
    waits = [value for _, value in series(lines, "data_wait")]
    if waits:
        share = 100 * sum(waits) / len(waits)
        axes.text(
            1, 0.02, f"waiting for data {share:.0f} % ", transform=axes.transAxes, ha="right", va="bottom",
            fontsize=8, color=QUIET,
        )  # fmt: skip


def _curves(axes: Axes, title: str, named: Mapping[str, Points]) -> None:
    """A panel of lines, with a legend where they have names."""
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    if not any(named.values()):
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color=QUIET)
        return
    for (name, points), color in zip(named.items(), COLORS, strict=False):
        steps, values = zip(*points, strict=True)
        dots = "o" if len(points) <= DOTS else None
        axes.plot(steps, values, color=color, linewidth=1.4, marker=dots, markersize=2.5, label=name)
    if any(named):
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)
