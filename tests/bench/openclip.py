"""Training steps of `Pretraining` against open_clip's own `train_one_epoch` on its own reader, in one run.

    OMP_NUM_THREADS=2 python tests/bench/openclip.py [--towers ViT-B-16] [--cached] [--batch 32] [--steps 4]

The same towers (by default ViT-B/32 and CLIP's text tower; random weights), batch, precision (fp32), optimizer (AdamW)
and shards; each side reads, decodes, augments and tokenizes for itself, in the training process (0 workers), and takes
its steps by its own code: open_clip's by open_clip_train.train and open_clip_train.data, ours by the engine. Each takes
turns; the first step of each turn is left out. A ratio above 1 says that ours trains more pairs a second; beside that
of the clock stands that of the processor's time, in which other work on the machine shows less.

Pictures are JPEGs of 640 × 480. Both show parts of 90 to 100 % of them (open_clip's default) where the image tower
learns or is encoded anew; cached features are of the whole picture. Texts are Chinese names and keywords of the corpus,
cut to Wukong's mean of 22 tokens (Table 2): open_clip pads every text to 77, ours are as long as they are.

How much a cached feature saves is arithmetic: of a locked step open_clip computes the image tower forward and the text
tower forward and backward at 77 tokens, ours the latter alone at some 24. The ratio of these operations, which no step
can beat by much, is printed beside the measured one: a small image tower has little to save. `--cached` measures that
alone.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import open_clip_train.data
import polars as pl
import torch
import webdataset
from open_clip_train.params import parse_args
from open_clip_train.train import train_one_epoch
from shard_resize import drawings, jpegs

from vlcli.models.config import DualEncoderConfig
from vlcli.models.cost import cost, on_meta
from vlcli.schemas.pretraining import Recipe
from vlcli.shards.pairs import load_pairs
from vlcli.text.model_tokenizers import open_tokenizer
from vlcli.training.pretraining import Pretraining

CORPUS = Path(__file__).parents[2] / "examples" / "emoji" / "raw.parquet"
EPOCHS = 8
LETTERS = 22
# open_clip's name: timm's, and the text tower beside it
TOWERS = {
    "ViT-B-32": ("vit_base_patch32_clip_224", {"width": 512, "heads": 8}),
    "ViT-B-16": ("vit_base_patch16_clip_224", {"width": 512, "heads": 8}),
    "ViT-L-14": ("vit_large_patch14_clip_224", {"width": 768, "heads": 12}),
}
CONTEXT = 77

# Its reader trips over the mark that webdataset has put behind each tar.
open_clip_train.data.tar_file_expander = functools.partial(
    open_clip_train.data.tar_file_expander, eof_value=None
)


class Clock:
    """When steps began: by the clock and by this process's processor time."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def mark(self, *_: Any) -> None:
        self.marks.append((time.perf_counter(), time.process_time()))

    def seconds(self) -> np.ndarray:
        """(2,) of a step, the first left out: clock, processor."""
        return np.diff(np.array(self.marks), axis=0)[1:].mean(0)


def write_shards(folder: Path, number: int, per_shard: int = 64) -> list[Path]:
    """Tars that both read, as open_clip wants them: jpg and txt."""
    files = jpegs(drawings(12), 640, 480, 100_000)
    rows = pl.read_parquet(CORPUS, columns=["name", "keywords"]).sample(number, seed=0, with_replacement=True)
    tars = []
    for first in range(0, number, per_shard):
        tars.append(folder / f"{first // per_shard:05d}.tar")
        with webdataset.TarWriter(str(tars[-1]), encoder=False) as writer:
            for i, (name, keywords) in enumerate(rows[first : first + per_shard].iter_rows(), start=first):
                # a comment behind the end makes each file another image, whose features are its own
                picture = files[i % len(files)] + f"{i}".encode()
                text = "，".join([name, *(keywords or [])])[:LETTERS]
                writer.write({"__key__": f"{i:06d}", "jpg": picture, "txt": text.encode()})
    return tars


def openclips(tars: list[Path], towers: str, batch: int, steps: int, *, locked: bool) -> np.ndarray:
    """Seconds of a step (clock, processor)."""
    torch.manual_seed(0)
    model, train_transform, _ = open_clip.create_model_and_transforms(
        towers, pretrained=None, output_dict=True
    )
    if locked:
        model.lock_image_tower(unlocked_groups=0, freeze_bn_stats=False)
    # all tars in one brace pattern
    pattern = str(tars[0].parent / f"{{00000..{len(tars) - 1:05d}}}.tar")
    options = ["--train-data", pattern, "--train-num-samples", str(batch * steps), "--batch-size", str(batch)]
    args = parse_args([*options, "--workers", "0", "--precision", "fp32", "--model", towers])
    args.device, args.distributed, args.world_size, args.rank, args.distill = "cpu", False, 1, 0, False
    args.local_rank, args.wandb, args.tensorboard, args.horovod = 0, False, False, False
    tokenizer = open_clip.get_tokenizer(towers)
    data = {
        "train": open_clip_train.data.get_wds_dataset(
            args, train_transform, is_train=True, tokenizer=tokenizer
        )
    }
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2)
    loss, clock = open_clip.ClipLoss(), Clock()
    train_one_epoch(model, data, loss, 0, optimizer, None, clock.mark, None, args)
    clock.mark()
    return clock.seconds()


class Steps:
    """A reporter that looks at the clock after each step."""

    def __init__(self) -> None:
        self.clock, self.encoded = Clock(), Clock()

    def step(self, *_: Any) -> None:
        self.clock.mark()

    def features(self, *_: Any) -> None:
        self.encoded.mark()

    def plan(self, *_: Any) -> None: ...
    def validated(self, *_: Any) -> None: ...
    def saved(self, *_: Any) -> None: ...
    def warn(self, *_: Any) -> None: ...


def model_of(towers: str, *, locked: bool) -> dict[str, Any]:
    image, text = TOWERS[towers]
    return {
        "dim": text["width"],
        "similarity": "global",
        "image": {"name": image, "init": "random", "locked": locked},
        "text": {**text, "layers": 12, "context": CONTEXT, "vocabulary": 49408},
    }


def ours(
    tars: list[Path], towers: str, batch: int, steps: int, out: Path, *, locked: bool, cache: Path | None
) -> SimpleNamespace:
    """Seconds of a step, and of the features of all images (clock, processor)."""
    model = model_of(towers, locked=locked)
    data = {"batch_size": batch, "workers": 0, "group": "", "cache": "off" if cache is None else str(cache)}
    if cache is None:
        data |= {"augment": "resized-crop", "crop_area": (0.9, 1.0)}
    optimizer = {"name": "adamw", "lr": 5e-4, "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.2}
    train = {"precision": "fp32", "log_every": 1, "save_every": 0, "evaluate_every": 0}
    recipe = Recipe.model_validate(
        {
            "name": "bench",
            "model": model,
            "data": data,
            "optimizer": optimizer | {"lr_rule": "fixed"},
            "schedule": {"warmup_steps": 0, "steps": steps + 1},
            "train": train,
        }
    )
    reporter = Steps()
    table = load_pairs([str(tar) for tar in tars])
    begun = np.array([time.perf_counter(), time.process_time()])
    run = Pretraining(recipe, table, out, reporter, device="cpu", force=True)
    ready = np.array([time.perf_counter(), time.process_time()])
    run.run()
    marks = reporter.encoded.marks
    extraction = np.array(marks[-1]) - begun if marks else ready - begun
    return SimpleNamespace(step=reporter.clock.seconds(), extraction=extraction, images=table.images)


def operations(towers: str, tars: list[Path]) -> float:
    """Of open_clip's locked step, by those of ours with cached features."""
    model = on_meta(DualEncoderConfig.model_validate(model_of(towers, locked=True)))
    found = cost(model, batch=1)
    texts = [candidates[0] for candidates in load_pairs([str(tar) for tar in tars]).texts]
    _, mask = open_tokenizer(model.config.text.tokenizer).encode(texts, length=CONTEXT)
    text = 3 * found.text_flops
    return (found.image_flops + text) / (text * float(mask.sum(1).mean()) / CONTEXT)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--towers", choices=TOWERS, default="ViT-B-32")
    parser.add_argument("--cached", action="store_true")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    towers, batch, steps = asked.towers, asked.batch, asked.steps
    print(f"{towers}, batch {batch}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tars").mkdir()
        tars = write_shards(folder / "tars", batch * (steps + 1))

        def turns(
            title: str, bar: float, mine: Callable[[int], np.ndarray], theirs: Callable[[], np.ndarray]
        ) -> tuple[np.ndarray, np.ndarray]:
            pairs = [(mine(number), theirs()) for number in range(asked.rounds)]
            ratio = np.median([other / own for own, other in pairs], axis=0)
            own, other = (np.min([pair[k] for pair in pairs], axis=0) for k in (0, 1))
            print(
                f"{title}: {ratio[0]:.2f}× by the clock, {ratio[1]:.2f}× by processor time; bar {bar}×:"
                f" {'held' if min(ratio) >= bar else 'MISSED'}"
                f" ({batch / own[0]:.1f} and {batch / other[0]:.1f} pairs/s)",
                flush=True,
            )
            return own, other

        def locked_openclip() -> np.ndarray:
            return openclips(tars, towers, batch, steps + 1, locked=True)

        if not asked.cached:
            turns(
                "global contrastive",
                1.0,
                lambda number: (
                    ours(tars, towers, batch, steps, folder / "run", locked=False, cache=None).step
                ),
                lambda: openclips(tars, towers, batch, steps + 1, locked=False),
            )
            turns(
                "locked image tower, not cached",
                1.3,
                lambda number: ours(tars, towers, batch, steps, folder / "run", locked=True, cache=None).step,
                locked_openclip,
            )
        extractions: list[np.ndarray] = []

        def cached(number: int) -> np.ndarray:
            cache = folder / f"cache{number}"
            found = ours(tars, towers, batch, 4 * steps, folder / "run", locked=True, cache=cache)
            extractions.append(found.extraction / found.images)
            return found.step

        own, locked = turns(
            "locked image tower, the steady epoch with cached features", 8.0, cached, locked_openclip
        )
        print(f"    by operations: {operations(towers, tars):.1f}×")
        image = np.min(extractions, axis=0)
        whole = (EPOCHS * locked / batch) / (image + EPOCHS * own / batch)
        print(
            f"{EPOCHS} epochs with the extraction counted: {whole[0]:.2f}× by the clock, {whole[1]:.2f}× by processor"
            f" time (a picture is encoded in {1000 * image[0]:.0f} ms)"
        )


if __name__ == "__main__":
    main()
