"""Tables of `zeroshot`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vlcli.commands import _evaluation as e
from vlcli.commands import _languages as many

PLACES = {"top1": "top-1", "top5": "top-5", "mean_per_class": "mean per class"}
NUMBERS = {
    **PLACES,
    "mean_top1_top5": "mean(top-1, top-5)",
    "map11": "11-point mAP",
    "auc": "AUC",
    "R@1": "R@1",
    "R@5": "R@5",
    "R@10": "R@10",
}


def numbers_of(result: dict[str, Any]) -> dict[str, str]:
    """The numbers of a result, that which its set goes by first."""
    first = [result["metric"]] if result["metric"] in result else []
    return {key: NUMBERS[key] for key in dict.fromkeys([*first, *NUMBERS]) if key in result}


def cells(result: dict[str, Any], keys: Iterable[str]) -> list[str]:
    return [e.cell(result[key], result["ci95"].get(key)) for key in keys]


def show(result: dict[str, Any]) -> None:
    """One result of naming or of a probe."""
    from vlcli.commands._console import show_table

    spread = result.get("probe", {}).get("sd", {})
    rows = []
    for key, shown in numbers_of(result).items():
        deviation = [f"± {spread[key]:.1f}"] if key in spread else []
        rows.append([shown, *cells(result, (key,)), *deviation])
    header = [f"labels {result['labels']}", f"{result['n']} images, {result['classes']} classes"]
    if spread:
        header.append(f"sd of {len(result['probe']['seeds'])} draws")
    title = e.title(result)
    if "protocol" in result:
        title += f" · {result['protocol']} on {result['features']}-projection features · {told(result)}"
    show_table(title, header, rows)


def told(result: dict[str, Any]) -> str:
    """What a probe has learnt from, and what chose its penalty."""
    said = result["probe"]
    words = [f"{result['n_train']:,} training rows"]
    if "shots" in said:
        words.append(f"{said['shots']} a class")
    if "k" in said:
        words.append(f"k {said['k']}, T {said['temperature']}")
    if "l2" in said:
        l2 = said["l2"] if isinstance(said["l2"], list) else [said["l2"]]
        by = {"val": f"chosen on {result['n_val']:,} validation rows", "given": "as given"}
        chosen = by.get(said["chosen_on"], "chosen by leaving one out")
        words.append(f"l2 {', '.join(f'{x:.3g}' for x in l2)} {chosen}")
    return ", ".join(words)


def show_languages(result: dict[str, Any], labels: str, prompts: str) -> None:
    """A line for each language."""
    keys = numbers_of(result["average"])
    header = [f"labels {labels}", *keys.values(), "images", "classes"]
    lines = [[*cells(one, keys), str(one["n"]), str(one["classes"])] for one in result["langs"]]
    many.show(result, {"prompts": prompts}, header, [*lines, [*cells(result["average"], keys), "", ""]])


def tell(result: dict[str, Any], public: Any, console: Any, where: str = "") -> None:
    """What a reader of the numbers should know."""
    if same := result.get("duplicate_names"):
        shown = "、".join(same[:5])
        console.warn(f"{where}several classes are called {shown}: top-1 cannot reach 100")
    if left_out := result.get("left_out"):
        console.note(f"{where}{left_out:,} images of other classes than the {result['classes']} are left out")
    if leaked := result.get("train_in_test"):
        console.warn(f"{leaked:,} rows to learn from show an image that is tested on")
    for line in (
        public.departures(result["classes"], result["n"], result.get("left_out", 0)) if public else ()
    ):
        console.warn(f"{where}{line}")
