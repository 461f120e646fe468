"""Time and memory of the late-interaction kernel against the plain einsum, forward and backward.

    OMP_NUM_THREADS=2 python tests/bench/late_interaction.py

The floor is three matrix products of (b·n1, d) by (d, B·n2): one forward, two backward.
"""

import resource
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

from vlcli.objectives.late_interaction import late_interaction

SHAPES = ((128, 49, 32, 256), (128, 196, 32, 256), (512, 24, 32, 256), (256, 16, 32, 256))


def inputs(b, n1, n2, d, *, padded):
    torch.manual_seed(0)
    image = F.normalize(torch.randn(b, n1, d), dim=-1).requires_grad_()
    text = F.normalize(torch.randn(b, n2, d), dim=-1).requires_grad_()
    lengths = torch.randint(4, n2 + 1, (b,)) if padded else torch.full((b,), n2)
    return image, text, torch.arange(n2)[None] < lengths[:, None]


def plain(image, text, mask):
    scores = torch.einsum("ikd,jrd->ikjr", image, text)
    i2t = scores.masked_fill(~mask[None, None], -torch.inf).amax(3).mean(1)
    t2i = (scores.amax(1) * mask[None]).sum(2) / mask.sum(1)[None]
    return i2t, t2i


def floor(image, text, mask):
    a, b = image.reshape(-1, image.shape[2]), text.reshape(-1, text.shape[2])
    scores = a @ b.T
    return (scores.detach() @ b).sum() + (scores.detach().T @ a).sum()


def once(name, shape, padded):
    """Best of three seconds, and the peak memory above what the inputs take, in MiB."""
    image, text, mask = inputs(*shape, padded=padded)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    best = float("inf")
    for _ in range(3):
        image.grad = text.grad = None
        start = time.perf_counter()
        if name == "floor":
            with torch.no_grad():
                floor(image, text, mask)
        else:
            i2t, t2i = (late_interaction if name == "vlcli" else plain)(image, text, mask)
            (i2t.sum() + t2i.sum()).backward()
        best = min(best, time.perf_counter() - start)
    return best, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


if __name__ == "__main__":
    if len(sys.argv) > 1:  # a process of its own for each measurement: peak memory never falls
        name, *rest = sys.argv[1:]
        seconds, memory = once(name, tuple(map(int, rest[:4])), rest[4] == "padded")
        print(seconds, memory)
        sys.exit()
    header = ("floor s", "plain s", "vlcli s", "ratio", "memory ratio")
    print(f"{'(b, n1, n2, d)':22}{'texts':10}" + "".join(f"{name:>13}" for name in header))
    for shape in SHAPES:
        for kind in ("full", "padded"):
            rows = {}
            for name in ("floor", "plain", "vlcli"):
                command = [sys.executable, __file__, name, *map(str, shape), kind]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                rows[name] = tuple(map(float, done.stdout.split()))
            ratio = rows["vlcli"][0] / rows["plain"][0]
            memory = rows["vlcli"][1] / max(rows["plain"][1], 1)
            values = (*(rows[name][0] for name in ("floor", "plain", "vlcli")), ratio, memory)
            print(f"{shape!s:22}{kind:10}" + "".join(f"{value:13.2f}" for value in values))
