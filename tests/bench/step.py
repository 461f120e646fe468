"""What comparing every token with every token adds to a training step: ViT-B/32 and the 12-layer text tower, token-wise
against global similarity, at batch 64 and, by gradient caching in chunks of 64, at batch 512. The bars: at most 1.10 of
the time and 1.15 of the peak memory.

    OMP_NUM_THREADS=2 python tests/bench/step.py [--precision bf16] [--batch 64 --chunk 0] [--rounds 3]

Steps of the two take turns in one process, and the best of each counts, by the clock and by the processor's time; peak
memory is of two steps in a process of its own, whose second one is timed where there are no turns (`--rounds 0`). The
parts of a step say where an excess is. It ends with exit 1 if a bar does not hold.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator

from vlcli.models.dual import DualEncoder
from vlcli.objectives.contrastive import total_loss
from vlcli.recipes import load_recipe
from vlcli.training.engine import Outcome
from vlcli.training.gradient_cache import Encoded, chunked
from vlcli.training.objective import Objective
from vlcli.training.optimizers import build_optimizer, parameter_groups

TIME, MEMORY = 1.10, 1.15
KINDS = ("global", "tokenwise")
PARTS = ("encode", "compare", "back", "optimizer")


class Step:
    """A model, its optimizer and one batch; `take()` is a step as the engine takes it."""

    def __init__(self, similarity, batch, chunk, precision):
        torch.manual_seed(0)
        recipe = load_recipe(
            "wukong-vit-b-f",
            [f"model.similarity={similarity}", "model.image.locked=false", "model.image.init=random"],
        )
        self.accelerator = Accelerator(mixed_precision="bf16" if precision == "bf16" else "no", cpu=True)
        model = DualEncoder(recipe.model)
        self.objective = Objective(model, recipe.objective, seed=0)
        optimizer = build_optimizer(parameter_groups(model, recipe.optimizer)[0], recipe.optimizer)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.batch, self.chunk = batch, chunk
        self.pixels = torch.randn(batch, 3, 224, 224)
        lengths = torch.randint(8, 33, (batch,))
        self.mask = torch.arange(32) < lengths[:, None]
        self.ids = torch.randint(1000, 20000, (batch, 32)) * self.mask
        self.codes = torch.arange(batch).expand(3, -1)
        self.spent = dict.fromkeys(PARTS, 0.0)

    def _spend(self, part, start):
        self.spent[part] += time.process_time() - start

    def _encode(self, rows):
        start = time.process_time()
        found = Encoded(*self.model(self.ids[rows], self.mask[rows], pixels=self.pixels[rows]))
        self._spend("encode", start)
        return found

    def _compare(self, found):
        start = time.process_time()
        parts = self.objective(*found, self.codes, slice(0, self.batch), 0)
        self._spend("compare", start)
        return Outcome(total_loss(parts), {})

    def take(self):
        """(seconds by the clock, of the processors)"""
        self.spent = dict.fromkeys(PARTS, 0.0)
        wall, processor = time.perf_counter(), time.process_time()
        self.optimizer.zero_grad(set_to_none=True)
        if self.chunk:
            outcome = chunked(
                self.accelerator, self.model, self.batch, self.chunk, self._encode, self._compare
            )
            outcome.backward()
        else:
            self.accelerator.backward(self._compare(self._encode(slice(None))).loss)
        start = time.process_time()
        self.optimizer.step()
        self._spend("optimizer", start)
        took = time.perf_counter() - wall, time.process_time() - processor
        self.spent["back"] = took[1] - sum(self.spent.values())
        return took


def peak():
    """MiB this program has held at most."""
    status = Path("/proc/self/status").read_text().split("VmHWM:")[1]
    return int(status.split()[0]) / 1024


def alone(kind, batch, chunk, precision):
    """Two steps: the optimizer's moments are there from the first on. What the second took, and the peak."""
    step = Step(kind, batch, chunk, precision)
    step.take()
    wall, processor = step.take()
    return {"took": (wall, processor, step.spent), "peak": peak()}


def each_alone(batch, chunk, precision):
    """{kind: what `alone` finds of it}, each in a process of its own."""
    found = {}
    for kind in KINDS:
        command = [sys.executable, __file__, "--alone", kind, "--precision", precision]
        command += ["--batch", str(batch), "--chunk", str(chunk)]
        found[kind] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def times(batch, chunk, precision, rounds):
    """{kind: (best by the clock, best of the processors, parts of the latter)}"""
    steps = {kind: Step(kind, batch, chunk, precision) for kind in KINDS}
    best = dict.fromkeys(KINDS, (float("inf"), float("inf")))
    parts = {}
    for number in range(rounds + 1):
        for kind, step in steps.items():
            wall, processor = step.take()
            if number == 0:  # warms up
                continue
            if processor < best[kind][1]:
                parts[kind] = step.spent
            best[kind] = min(best[kind][0], wall), min(best[kind][1], processor)
    return {kind: (*best[kind], parts[kind]) for kind in KINDS}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--batch", type=int)
    parser.add_argument("--chunk", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3, help="0: the second step of each process alone")
    parser.add_argument("--alone", choices=KINDS, help="one process's own part of this")
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(alone(given.alone, given.batch, given.chunk, given.precision)))
        sys.exit()
    cases = [(given.batch, given.chunk)] if given.batch else [(64, 0), (512, 64)]
    verdicts = []
    turns = f"best of {given.rounds}" if given.rounds else "the second step"
    print(f"{torch.get_num_threads()} threads, {given.precision}, {turns}")
    header = [*("s", "cpu s", *(f"{part} cpu" for part in PARTS)), "peak MiB"]
    print(f"{'batch (chunk)':16}{'':12}" + "".join(f"{name:>14}" for name in header))
    for batch, chunk in cases:
        took = times(batch, chunk, given.precision, given.rounds) if given.rounds else {}
        processes = each_alone(batch, chunk, given.precision)
        held = {kind: found["peak"] for kind, found in processes.items()}
        took = took or {kind: found["took"] for kind, found in processes.items()}
        name = f"{batch} ({chunk or 'off'})"
        for kind in KINDS:
            wall, processor, parts = took[kind]
            values = [wall, processor, *parts.values()]
            print(
                f"{name:16}{kind:12}" + "".join(f"{x:14.2f}" for x in values) + f"{held[kind]:14.0f}",
                flush=True,
            )
        one, other = took["tokenwise"], took["global"]
        verdicts += [
            (f"{name:16}{'time':16}", one[0] / other[0], TIME),
            (f"{name:16}{'processor time':16}", one[1] / other[1], TIME),
            (f"{name:16}{'peak memory':16}", held["tokenwise"] / held["global"], MEMORY),
        ]
    print(f"\n{'':32}{'ratio':>8}{'bar':>8}")
    for name, value, bar in verdicts:
        print(f"{name}{value:8.3f}{bar:8.2f}  {'holds' if value <= bar else 'DOES NOT HOLD'}")
    sys.exit(any(value > bar for _, value, bar in verdicts))
