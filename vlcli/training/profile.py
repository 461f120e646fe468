"""Where the time of a step goes, and how near it comes to what the machine can do."""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from vlcli.models.flops import FlopCounter
from vlcli.schemas.pretraining import Recipe
from vlcli.shards.pair_table import PairTable
from vlcli.training.engine import Outcome
from vlcli.training.meter import Reporter
from vlcli.training.pretraining import Pretraining

WARM_UP = 3  # steps before anything is measured: caches fill, workers start, kernels are chosen
SECTIONS = ("data", "image tower", "text tower", "similarity", "backward", "optimizer", "other")


def pairs_needed(recipe: Recipe, steps: int) -> int:
    """How many pairs a profile looks at; of a larger corpus no more need be read."""
    return recipe.data.batch_size * (WARM_UP + 2 * steps + 1)


def profile(
    build: Callable[..., Pretraining],
    recipe: Recipe,
    pairs: PairTable,
    reporter: Reporter,
    *,
    steps: int = 10,
    **how: Any,
) -> dict[str, Any]:
    """Take `steps` steps of a run as the engine takes them, and one more to count; nothing is left of the run but
    features in the cache that were not there. `build(recipe, pairs, out, reporter, **how)` makes the run.

    FLOPs of a step are `counted` by torch's counter as the step is taken, and `analytic` by the shapes of its
    operations (models/flops.py), which knows grouped convolutions but not the backward pass of our own kernels.
    `utilisation` is of the speed of a large matrix product, measured here in the run's precision. Shares are of the
    time of a step on this process; on a GPU they are those of steps that wait at every border. Bytes are of this
    process, and on a CPU all that it held at the worst moment.
    """
    watched = recipe.model_copy(
        update={
            "schedule": recipe.schedule.model_copy(update={"steps": WARM_UP + 2 * steps + 2}),
            "train": recipe.train.model_copy(
                update={"save_every": 0, "save_minutes": 0.0, "evaluate_every": 0, "trackers": ()}
            ),
        }
    )
    with tempfile.TemporaryDirectory(prefix="vlcli-profile-") as place:
        run = build(watched, pairs, Path(place), reporter, **how)
        watch = _Watch(run, steps)
        with suppress(_Enough):
            run.run()
        return _report(run, watch)


class _Enough(Exception):
    """All is measured."""


class _Clock:
    """Seconds by section. A section inside another is not counted twice: the outer one stands still."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self.on = False
        self._open: list[str] = []
        self._since = 0.0

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _turn(self) -> None:
        moment = self.now()
        if self._open:
            name = self._open[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + moment - self._since
        self._since = moment

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        if not self.on:
            yield
            return
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def inside(*arguments: Any, **named: Any) -> Any:
            with self.section(name):
                return function(*arguments, **named)

        return inside


class _Watch:
    """Stands at the borders of a run: between its steps, and around the parts of a step."""

    def __init__(self, run: Pretraining, steps: int) -> None:
        self.run, self.steps = run, steps
        self.device = run.engine.device
        self.clock = _Clock(self.device)
        # Borders that wait for a GPU slow it down: there the speed is that of steps without them.
        self.apart = self.device.type == "cuda"
        self.durations: list[float] = []
        self.sectioned = 0.0  # seconds of the steps that the clock saw
        self.torchs = FlopCounterMode(display=False, custom_mapping=_ATTENTION_ON_CPU)
        self.ours = FlopCounter()
        self.held: int | None = None
        self.peak: int | None = None
        self._done, self._last = 0, 0.0
        model, engine = run.model, run.engine
        for owner, name, section in (
            (model, "image_features", "image tower"),
            (model, "project_image", "image tower"),
            (model, "encode_text", "text tower"),
            (engine.accelerator, "backward", "backward"),
            (engine.optimizer, "step", "optimizer"),
        ):
            setattr(owner, name, self.clock.timed(section, getattr(owner, name)))
        borders: dict[str, Any] = {
            "losses": self._losses(run.losses),
            "batches": self._batches(run.batches),
            "stepped": self._between(run.stepped),
        }
        for name, value in borders.items():
            setattr(run, name, value)

    def _losses(self, losses: Callable[..., Outcome]) -> Callable[..., Outcome]:
        def timed(*arguments: Any) -> Outcome:
            with self.clock.section("similarity"):  # of which the towers have their own
                outcome = losses(*arguments)
            if outcome.backward is None:
                return outcome
            return outcome._replace(backward=self.clock.timed("backward", outcome.backward))

        return timed

    def _batches(self, batches: Callable[[int, int], Iterator[Any]]) -> Callable[[int, int], Iterator[Any]]:
        def waited(start: int, stop: int) -> Iterator[Any]:
            inner = batches(start, stop)
            while True:
                with self.clock.section("data"):
                    batch = next(inner)
                yield batch

        return waited

    def _between(self, stepped: Callable[[], None]) -> Callable[[], None]:
        def border() -> None:
            stepped()
            self._done += 1
            moment, taken = self.clock.now(), self._done - WARM_UP  # steps measured, this one included
            last = self.steps * (2 if self.apart else 1)
            if 0 < taken <= last:
                if taken <= self.steps:
                    self.durations.append(moment - self._last)
                if self.clock.on:
                    self.sectioned += moment - self._last
            if taken == 0:
                self.held = _reset_peak(self.device)
            if taken == last:
                self.peak = _peak(self.device)
                self.torchs.__enter__()
                self.ours.__enter__()
            self.clock.on = self.steps * self.apart <= taken < last
            if taken > last:
                self.ours.__exit__(None, None, None)
                self.torchs.__exit__(None, None, None)
                raise _Enough
            self._last = self.clock.now()

        return border


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


# torch's counter knows the attention kernels of GPUs; it hands over shapes.
_ATTENTION_ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def _report(run: Pretraining, watch: _Watch) -> dict[str, Any]:
    recipe, engine = run.recipe, run.engine
    world = engine.accelerator.num_processes
    seconds = statistics.median(watch.durations)
    counted, analytic = watch.torchs.get_total_flops(), watch.ours.forward + watch.ours.backward
    # of the gradient of a grouped convolution torch's counter says as many times too much as there are groups
    flops = analytic if _learns_groups(run.model) else counted
    ceiling = matmul_speed(engine.device, recipe.train.precision)
    shares = {name: watch.clock.seconds.get(name, 0.0) / watch.sectioned for name in SECTIONS}
    shares["other"] = max(0.0, 1 - sum(shares.values()))
    return {
        "recipe": recipe.name,
        "device": _device_name(engine.device),
        "threads": torch.get_num_threads(),
        "processes": world,
        "precision": recipe.train.precision,
        "batch_size": recipe.data.batch_size,
        "features": "cached" if run.store is not None else "computed",
        "steps": len(watch.durations),
        "seconds_per_step": seconds,
        "pairs_per_second": recipe.data.batch_size / seconds,
        "flops_per_step": {"counted": counted, "analytic": analytic},
        "flops_per_second": flops / seconds,
        "matmul_flops_per_second": ceiling,
        "utilisation": flops / seconds / ceiling,
        "memory": {"before": watch.held, "peak": watch.peak},
        "shares": shares,
    }


def _learns_groups(model: nn.Module) -> bool:
    return any(
        isinstance(layer, nn.Conv2d) and layer.groups > 1 and layer.weight.requires_grad
        for layer in model.modules()
    )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found = re.search(r"model name\s*:\s*(.+)", _read("/proc/cpuinfo"))
    return found[1] if found is not None else device.type


@torch.no_grad()
def matmul_speed(device: torch.device, precision: str, *, seconds: float = 1.0) -> float:
    """Floating point operations a second of the fastest square matrix product, tried for `seconds` at each size."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    best = 0.0
    for size in (4096, 8192) if device.type == "cuda" else (1024, 2048):
        a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
        clock, end = _Clock(device), time.perf_counter() + seconds
        while True:
            start = clock.now()
            torch.matmul(a, b)
            moment = clock.now()
            best = max(best, 2 * size**3 / (moment - start))
            if moment > end:
                break
    return best


def _reset_peak(device: torch.device) -> int | None:
    """Start anew with the peak of memory; returns what is held now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak falls to what is resident
    except OSError:
        return None
    return _resident("VmRSS")


def _peak(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM")


def _resident(name: str) -> int | None:
    found = re.search(rf"{name}:\s+(\d+) kB", _read("/proc/self/status"))
    return None if found is None else 1024 * int(found[1])


def _read(path: str) -> str:
    file = Path(path)
    return file.read_text() if file.is_file() else ""
