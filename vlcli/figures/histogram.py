"""The histograms of a corpus: tokens of a caption, shorter side and aspect ratio of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vlcli.figures.canvas import plain_settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAR, MARK, INK = "#2f6690", "#b23a48", "#1a1a1a"
LONGEST = 64  # tokens; the last bar holds all captions that are as long or longer


def draw_histograms(report: Mapping[str, Any]) -> Figure:
    """Three panels from a report of `curation.statistics.collect`; one without data says so."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with plain_settings():
        figure = Figure(figsize=(13.5, 3.9), facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        tokens, sides, aspects = figure.subplots(1, 3)
        _draw_tokens(tokens, report["tokens_per_caption"], report["word_unit"])
        sizes = report["sizes"]
        _draw_bins(sides, "shorter side of the image, px", "pairs", sizes["shorter_side_histogram"])
        _draw_bins(aspects, "longer side over shorter side", "pairs", sizes["aspect_histogram"])
    return figure


def _draw_tokens(axes: Axes, spread: Mapping[str, Any], unit: str) -> None:
    counts = _up_to(spread["histogram"], LONGEST)
    _frame(axes, f"tokens per caption ({unit})", "captions", empty=not counts)
    if not counts:
        return
    axes.bar(list(counts), list(counts.values()), width=0.86, color=BAR)
    axes.set_xlim(min(counts) - 0.8, max(max(counts), min(counts) + 8) + 0.8)
    if spread["max"] > LONGEST:
        axes.set_xticks([*range(0, LONGEST, 16), LONGEST], [*map(str, range(0, LONGEST, 16)), f"≥ {LONGEST}"])
    axes.axvline(min(spread["median"], LONGEST), color=MARK, linewidth=1.2)
    words = f"mean {spread['mean']:.1f}, std {spread['std']:.1f}, median {spread['median']:g}"
    axes.set_title(words, fontsize=10, color=INK)


def _up_to(pairs: Sequence[Sequence[int]], longest: int) -> dict[int, int]:
    """Length → captions, those beyond `longest` counted with it."""
    counts: dict[int, int] = {}
    for length, count in pairs:
        counts[min(length, longest)] = counts.get(min(length, longest), 0) + count
    return counts


def _draw_bins(axes: Axes, label: str, unit: str, bins: Sequence[Mapping[str, Any]]) -> None:
    counts = [line["count"] for line in bins]
    total = sum(counts)
    _frame(axes, label, unit, empty=not total)
    if not total:
        return
    bars = axes.bar(range(len(bins)), counts, width=0.92, align="edge", color=BAR)
    shares = [f"{100 * count / total:.1f} %" if count else "" for count in counts]
    axes.bar_label(bars, shares, fontsize=6, padding=1, color=INK)
    axes.set_xticks(
        range(len(bins)), [f"{line['from']:g}" for line in bins], fontsize=7
    )  # at the bar's left edge
    axes.set_title(f"{total:,} {unit}", fontsize=10, color=INK)


def _frame(axes: Axes, label: str, unit: str, *, empty: bool) -> None:
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    if empty:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color=INK)
        return
    axes.set_ylabel(unit)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
