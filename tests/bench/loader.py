"""Reader, decoder and augmentation, per core, against the usual chain: pictures a second of processor time.

    python tests/bench/loader.py [--pictures DIR] [--number 512] [--rounds 4]

Shards of JPEGs of 640 × 480 and some 100 kB, read by both from the same tars on one thread: ours by a `Loader`'s own
order, by offset; the other as open_clip builds it from webdataset: tars in order, a shuffle buffer, decode("pilrgb"),
torchvision's transforms, batches. Each augmentation is followed by what makes floats of it. Times are the processor's
for this process, in turns, the best round of each, so that other work on the machine counts little.

Quality is the PSNR of our 8-bit pixels against the same part of the picture shrunk in floating point by Lanczos,
and of what torchvision makes of that part.

Then: what reading by offset in a shuffled order costs beside reading tars from front to back, from a disk whose cache
has been asked to forget them; and what a pair takes in memory.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import webdataset
from PIL import Image
from shard_resize import drawings, jpegs, photographs
from torchvision import transforms as T
from torchvision.transforms import functional as F

from vlcli.images.augment import Augment, resized_crop
from vlcli.images.preprocess import Preprocess, PreprocessConfig
from vlcli.schemas.parts import DataConfig
from vlcli.shards.columns import Column
from vlcli.shards.pair_table import PairTable
from vlcli.shards.pairs import load_pairs
from vlcli.training.loader import seed_of
from vlcli.training.order import Order
from vlcli.training.pictures import Wanted, pictures

SIZE, BATCH, PER_SHARD = 224, 64, 128
CUBIC = T.InterpolationMode.BICUBIC
CONFIG = PreprocessConfig(size=SIZE)
END = [T.ToTensor(), T.Normalize(CONFIG.mean, CONFIG.std)]
CASES = {
    "a part of 8 to 100 % and a flip": (
        {"augment": "resized-crop"},
        [T.RandomResizedCrop(SIZE, interpolation=CUBIC), T.RandomHorizontalFlip(), *END],
    ),
    "a part of 90 to 100 %, open_clip's default": (
        {"augment": "resized-crop", "crop_area": (0.9, 1.0)},
        [T.RandomResizedCrop(SIZE, scale=(0.9, 1.0), interpolation=CUBIC), *END],
    ),
    "346/289, a crop and a flip, ALIGN's": (
        {"augment": "crop-flip"},
        [T.Resize(268, interpolation=CUBIC), T.RandomCrop(SIZE), T.RandomHorizontalFlip(), *END],
    ),
    "AutoAugment": (
        {"augment": "autoaugment"},
        [T.Resize(SIZE, interpolation=CUBIC), T.CenterCrop(SIZE), T.AutoAugment(), *END],
    ),
}


def write_shards(folder: Path, files: list[bytes], number: int) -> list[Path]:
    """`number` pairs in tars of PER_SHARD."""
    tars = []
    for first in range(0, number, PER_SHARD):
        tars.append(folder / f"{first // PER_SHARD:05d}.tar")
        with webdataset.TarWriter(str(tars[-1]), encoder=False) as writer:
            for i in range(first, min(number, first + PER_SHARD)):
                sample = {"jpg": files[i % len(files)], "txt": f"第{i}张图".encode()}
                writer.write({"__key__": f"{i:09d}", **sample})
    return tars


def ours(table: PairTable, config: DataConfig, epoch: int) -> int:
    """As `Loader` reads pixels, in this process."""
    preprocess = Preprocess(CONFIG)
    order = Order(len(table), config, seed=0)

    def plan():
        for step in range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch):
            _, rows, times = order.step(step)
            yield [
                Wanted(table.locate(int(row)), seed_of(0, time, table.ids[int(row)], "image"))
                for row, time in zip(rows, times, strict=True)
            ]

    augment = Augment(config.augment, preprocess, area=config.crop_area)
    done = 0
    for found in pictures(plan, augment, workers=0, pin_memory=False):
        assert not found.bad
        done += len(preprocess.normalise(found.pixels))
    return done


def theirs(tars: list[Path], transform: Callable[[Image.Image], torch.Tensor]) -> int:
    """The stages of open_clip's training data, without its workers."""
    pipeline = webdataset.DataPipeline(
        webdataset.SimpleShardList([str(tar) for tar in tars]),
        webdataset.tarfile_to_samples(),
        webdataset.shuffle(1000, initial=100),
        webdataset.decode("pilrgb"),
        webdataset.rename(image="jpg;png;jpeg;webp", text="txt"),
        webdataset.map_dict(image=transform),
        webdataset.to_tuple("image", "text"),
        webdataset.batched(BATCH, partial=False),
    )
    return sum(len(images) for images, _ in pipeline)


def rates(runs: dict[str, Callable[[int], int]], rounds: int) -> dict[str, float]:
    """Pictures a second of processor time, the best round of each."""
    best = dict.fromkeys(runs, 0.0)
    for number in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            done = run(number)
            best[name] = max(best[name], done / (time.process_time() - start))
    return best


def psnr(found: np.ndarray, right: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / ((found - right) ** 2).mean()))


def quality(files: list[bytes], area: tuple[float, float]) -> tuple[float, float, float]:
    """dB of ours and of torchvision against Lanczos in floating point, and of ours against torchvision."""
    augment = Augment("resized-crop", Preprocess(CONFIG), area=area)
    found = []
    for number, data in enumerate(files * 3):
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        draws = random.Random(number)
        left, upper, right, lower = (int(side) for side in resized_crop(picture.size, area, draws))
        flip = draws.random() < 0.5
        full = np.asarray(picture, np.float32)
        planes = [Image.fromarray(full[..., c]) for c in range(3)]
        box = (left, upper, right, lower)
        exact = np.stack(
            [np.asarray(p.resize((SIZE, SIZE), Image.Resampling.LANCZOS, box)) for p in planes], axis=2
        )
        mine = augment(data, random.Random(number)).astype(float)
        mine = mine[:, ::-1] if flip else mine
        part = F.resized_crop(picture, upper, left, lower - upper, right - left, [SIZE, SIZE], CUBIC)
        other = np.asarray(part).astype(float)
        exact = exact.clip(0, 255)
        found.append((psnr(mine, exact), psnr(other, exact), psnr(mine, other)))
    return tuple(np.mean(found, axis=0))


def forget(tars: list[Path]) -> None:
    for tar in tars:
        fd = os.open(tar, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def reading(table: PairTable, tars: list[Path]) -> dict[str, float]:
    """MB/s: by offset in a shuffled order, and from front to back."""
    found = {}
    total = sum(tar.stat().st_size for tar in tars) / 1e6
    forget(tars)
    start = time.perf_counter()
    for row in np.random.default_rng(0).permutation(len(table)):
        table.image_bytes(int(row))
    found["by offset, shuffled"] = total / (time.perf_counter() - start)
    forget(tars)
    start = time.perf_counter()
    for tar in tars:
        with tarfile.open(tar, "r|") as stream:
            for member in stream:
                file = stream.extractfile(member)
                assert file is not None
                file.read()
    found["from front to back"] = total / (time.perf_counter() - start)
    return found


def memory(table: PairTable, tars: list[Path]) -> tuple[float, float]:
    """Bytes a pair in columns, and as Python's objects; of digests as ids and texts of 20 ideographs."""
    import hashlib
    import sys

    n = 1 << 15
    digests = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(n)]
    texts = [[chr(0x4E00 + i % 20000) * 20] for i in range(n)]
    columns = [
        Column([d[:32] for d in digests]),
        Column(digests),
        Column(texts),
        Column([[]] * n),
        Column([None] * n),
    ]
    objects = sum(sys.getsizeof(d) + 8 + sys.getsizeof(d[:32]) + 8 for d in digests)
    objects += sum(sys.getsizeof(t) + 8 + sys.getsizeof(t[0]) + 64 + 8 for t in texts)  # and an empty list
    return sum(column.nbytes for column in columns) / n + 16, objects / n + 16


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--number", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=4)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    files = jpegs(photographs(asked.pictures) if asked.pictures else drawings(12), 640, 480, 100_000)
    with tempfile.TemporaryDirectory() as name:
        tars = write_shards(Path(name), files, asked.number)
        table = load_pairs([str(tar) for tar in tars])
        print(
            f"{len(table)} pairs, JPEGs of 640 × 480, {sum(map(len, files)) / len(files) / 1000:.0f} kB each"
        )
        worst = float("inf")
        for case, (settings, stages) in CASES.items():
            config = DataConfig(batch_size=BATCH, **settings)
            transform = T.Compose(stages)
            found = rates(
                {
                    "ours": lambda number, config=config: ours(table, config, number),
                    "theirs": lambda number, transform=transform: theirs(tars, transform),
                },
                asked.rounds,
            )
            ratio = found["ours"] / found["theirs"]
            worst = min(worst, ratio)
            print(
                f"  {case}: {ratio:.2f}× ({found['ours']:.0f}/s; webdataset and torchvision {found['theirs']:.0f}/s)"
            )
        print(f"  bar 1.5×: {'held' if worst >= 1.5 else 'MISSED'}, the least is {worst:.2f}×")
        for area in ((0.08, 1.0), (0.9, 1.0)):
            mine, other, between = quality(files, area)
            print(
                f"  parts of {area[0]:.0%} to 100 %: {mine:.2f} dB against Lanczos in floating point, torchvision"
                f" {other:.2f} dB; between the two {between:.2f} dB"
            )
        print(
            "  reading: "
            + ", ".join(f"{name} {rate:.0f} MB/s" for name, rate in reading(table, tars).items())
        )
        packed, objects = memory(table, tars)
        print(f"  a pair: {packed:.0f} bytes ({objects:.0f} as objects); 100 million: {packed / 10:.1f} GB")


if __name__ == "__main__":
    main()
