"""One training step of several recipes, by the training loop itself: the loss, the temperature and every gradient.

    accelerate launch … tests/training/gradients.py OUT CACHE [--set=KEY=VALUE …] [CASE …]

by all processes, written to OUT by the first, all cases when none is named; and by each, which pairs its batches have.

The test that launches it calls `step` for one process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from training_cases import Silent, pairs, recipe

from vlcli.training.pretraining import Pretraining
from vlcli.training.processes import rank

TOKENS = ("objective.tokens.keep=0.25", "model.image.preprocess.size=128")
CASES = {
    "global": ("model.similarity=global",),
    "align": (
        "model.similarity=global",
        "objective.reduction=sum",
        "objective.label_smoothing=0.1",
        "objective.negatives=0.25",
    ),
    "tokenwise": ("objective.negatives=0.5",),
    "uneven": ("data.last=keep",),
    "selected": (*TOKENS, "objective.tokens.scope=global"),
    "selected-local": (*TOKENS, "objective.tokens.scope=local"),
    "selected-fp16": (*TOKENS, "objective.tokens.precision=fp16"),
    "reduced": ("model.similarity=reduced", "model.reduction.tokens=3"),
    "reduced-paper": ("model.similarity=reduced", "model.reduction={kind='paper', tokens=3}"),
}


def step(place: Path, cache: Path, *overrides: str) -> dict[str, torch.Tensor]:
    """{"loss", "scale" 1/τ after the step, name of a parameter: its gradient} of the first step of a run."""
    reporter = Silent()
    options = ("schedule.steps=1", "train.evaluate_every=0", "model.text.dropout=0.2", "data.workers=0")
    table = pairs(13 if "data.last=keep" in overrides else 64)  # of 16
    run = Pretraining(recipe(cache, *options, *overrides), table, place, reporter, device="cpu")
    found: dict[str, torch.Tensor] = {}

    def after_the_step() -> None:
        bound()
        found.update({n: p.grad.clone() for n, p in run.model.named_parameters() if p.grad is not None})
        found["scale"] = run.model.scale().detach()

    bound, run.model.bound_scale_ = run.model.bound_scale_, after_the_step
    run.run()
    if rank() == 0:
        found["loss"] = torch.tensor(reporter.steps[-1][1]["loss"], dtype=torch.float64)
    return found


def shares(place: Path, cache: Path) -> list[list[str]]:
    """The ids of this process's pairs in each step of three epochs, of which the last has ten pairs."""
    config = recipe(cache, "data.workers=0", "data.last=keep")
    run = Pretraining(config, pairs(58), place, Silent(), device="cpu")
    return [batch.pair_ids[batch.local] for batch in run.batches(0, run.total)]


if __name__ == "__main__":
    out, cache = map(Path, sys.argv[1:3])
    mine = shares(out / "shares", cache)  # first, or there would be no ranks yet
    (out / f"shares-{rank()}.json").write_text(json.dumps(mine))
    changes = [word.removeprefix("--set=") for word in sys.argv[3:] if word.startswith("--set=")]
    names = [word for word in sys.argv[3:] if not word.startswith("--set=")] or list(CASES)
    results = {name: step(out / name, cache, *CASES[name], *changes) for name in names}
    if rank() == 0:
        torch.save(results, out / "results.pt")
