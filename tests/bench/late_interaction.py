"""Time and memory of the late-interaction kernel against the plain einsum, forward and backward, and the bars it has to
keep: at most 0.6 of its time and an eighth of its extra memory, both results equal to 1e-5.

    OMP_NUM_THREADS=2 python tests/bench/late_interaction.py [--quick | --apart]

The floor is three matrix products of (b·n1, d) by (d, B·n2), one forward and two backward: what a dot product of all
tokens would cost. Times are the best of several turns in one process, the three taking turns, by the clock and by the
processor's time; memory is the peak above the inputs, each in a process of its own, since a peak never falls. It ends
with exit 1 if a bar does not hold.
"""

import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from vlcli.objectives.late_interaction import late_interaction

SHAPES = ((128, 49, 32, 256), (128, 196, 32, 256), (512, 24, 32, 256))
TIME, MEMORY, APART = 0.6, 1 / 8, 1e-5


def inputs(b, n1, n2, d, *, padded, dtype=torch.float32):
    torch.manual_seed(0)
    image = F.normalize(torch.randn(b, n1, d), dim=-1).to(dtype).requires_grad_()
    text = F.normalize(torch.randn(b, n2, d), dim=-1).to(dtype).requires_grad_()
    lengths = torch.randint(4, n2 + 1, (b,)) if padded else torch.full((b,), n2)
    return image, text, torch.arange(n2)[None] < lengths[:, None]


def plain(image, text, mask):
    scores = torch.einsum("ikd,jrd->ikjr", image, text)
    if not mask.all():
        scores = scores.masked_fill(~mask[None, None], -torch.inf)
    i2t = scores.amax(3).mean(1)
    best = scores.amax(1)
    if not mask.all():
        best = best.masked_fill(~mask[None], 0.0)
    return i2t, best.sum(2) / mask.sum(1)[None]


def floor(image, text, mask):
    with torch.no_grad():
        a, b = image.reshape(-1, image.shape[2]), text.reshape(-1, text.shape[2])
        scores = a @ b.T
        return scores @ b, scores.T @ a


def step(function, image, text, mask):
    """Both similarities and both gradients; nothing of a floor."""
    image.grad = text.grad = None
    got = function(image, text, mask)
    if function is floor:
        return None
    (got[0].sum() + got[1].sum()).backward()
    return got[0].detach(), got[1].detach(), image.grad, text.grad


FUNCTIONS = {"floor": floor, "plain": plain, "vlcli": late_interaction}


def times(shape, padded, turns):
    """{name: (seconds by the clock, seconds of processors)}, the best of the turns."""
    arguments = inputs(*shape, padded=padded)
    best = {name: (float("inf"), float("inf")) for name in FUNCTIONS}
    for turn in range(turns + 1):
        for name, function in FUNCTIONS.items():
            wall, processor = time.perf_counter(), time.process_time()
            step(function, *arguments)
            took = time.perf_counter() - wall, time.process_time() - processor
            if turn:  # the first warms up
                best[name] = min(best[name][0], took[0]), min(best[name][1], took[1])
    return best


def peak():
    """MiB; of this program alone, while getrusage counts what its parent held before it."""
    status = Path("/proc/self/status").read_text().split("VmHWM:")[1]
    return int(status.split()[0]) / 1024


def memory(name, shape, padded):
    """MiB above the inputs and the libraries' own."""
    step(FUNCTIONS[name], *inputs(2, 3, 4, shape[3], padded=False))
    arguments = inputs(*shape, padded=padded)
    before = peak()
    step(FUNCTIONS[name], *arguments)
    return peak() - before


def apart(shape, padded):
    """The largest difference of anything from the plain einsum, relative to the largest of its kind. Similarities are
    compared as they are, in float32; gradients in float64, for among 200 million scores some two are closer than
    float32 tells, and a sum in another order then chooses another word: its whole gradient goes to another place."""
    arguments = inputs(*shape, padded=padded)
    wide = inputs(*shape, padded=padded, dtype=torch.float64)
    found = [
        step(function, *arguments)[:2] + step(function, *wide)[2:] for function in (late_interaction, plain)
    ]
    return max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(*found, strict=True))


def of_own_process(*words):
    done = subprocess.run(
        [sys.executable, __file__, *map(str, words)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        print(memory(sys.argv[2], tuple(map(int, sys.argv[3:7])), sys.argv[7] == "padded"))
        sys.exit()
    if "--apart" in sys.argv:
        found = {
            (shape, kind): apart(shape, kind == "padded") for shape in SHAPES for kind in ("full", "padded")
        }
        for (shape, kind), value in found.items():
            print(f"{shape!s:20}{kind:8}{value:10.2g}")
        sys.exit(any(value > APART for value in found.values()))
    turns = 2 if "--quick" in sys.argv else 6
    names = ("floor", "plain", "vlcli")
    header = [*(f"{name} s" for name in names), *(f"{name} cpu" for name in names), "plain MiB", "vlcli MiB"]
    print(f"{torch.get_num_threads()} threads, best of {turns}")
    print(f"{'(b, n1, n2, d)':20}{'texts':8}" + "".join(f"{name:>11}" for name in header))
    verdicts = []
    for shape in SHAPES:
        for kind in ("full", "padded"):
            took = times(shape, kind == "padded", turns)
            extra = [of_own_process("memory", name, *shape, kind) for name in ("plain", "vlcli")]
            values = [*(took[name][0] for name in names), *(took[name][1] for name in names)]
            print(
                f"{shape!s:20}{kind:8}"
                + "".join(f"{x:11.3f}" for x in values)
                + "".join(f"{x:11.0f}" for x in extra)
            )
            ratios = [took["vlcli"][i] / took["plain"][i] for i in (0, 1)]
            for what, value, bar in (
                ("time", ratios[0], TIME),
                ("processor time", ratios[1], TIME),
                ("extra memory", extra[1] / extra[0], MEMORY),
                ("apart", apart(shape, kind == "padded"), APART),
            ):
                verdicts.append((f"{shape!s:20}{kind:8}{what:16}", value, bar))
            sys.stdout.flush()
    print(f"\n{'':44}{'ratio':>10}{'bar':>10}")
    for name, value, bar in verdicts:
        print(f"{name}{value:10.2g}{bar:10.2g}  {'holds' if value <= bar else 'DOES NOT HOLD'}")
    sys.exit(any(value > bar for _, value, bar in verdicts))
