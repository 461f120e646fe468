"""`shard --resize` on JPEGs of 640 × 480 and 2000 × 1500 against img2dataset's Resizer: images/s, and equal quality.

    pip install --no-deps img2dataset==1.47.0 "albumentations<2" albucore==0.0.23 "opencv-python-headless<5"
    python tests/bench/shard_resize.py [--pictures DIR] [--number 12] [--rounds 20]

Both do the same to the same files, in turns, on one thread: read, judge, shrink the short side to 256 or 384, encode at
quality 95. Ours also takes the EXIF and the sha256. Times are the processor's for this process and the best of all
rounds, so that other work on the machine counts little. Quality is PSNR and SSIM against the full picture shrunk in
floating point: by Lanczos's filter, and by the mean over areas, which is the filter that img2dataset has by default.

The pictures are drawings of the bundled corpus, tiled and with noise so that they take as many bytes as photographs;
with --pictures, those of a folder. img2dataset's package imports wandb, so its module is loaded by itself.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch
from PIL import Image
from torchmetrics.functional.image import structural_similarity_index_measure

from vlcli.shards.pack import pack_image

ROOT = Path(__file__).parents[2]
SIZES = ((640, 480, 100_000), (2000, 1500, 600_000))  # width, height, bytes at least
TARGETS = (256, 384)


def img2dataset_resizer(size: int) -> Callable[[bytes], bytes]:
    """img2dataset's own, asked for what `--resize` does: short side, only downwards, no needless encoding."""
    found = importlib.util.find_spec("img2dataset")
    if found is None or found.origin is None:
        sys.exit("img2dataset is not installed: see the head of this file")
    spec = importlib.util.spec_from_file_location("resizer", Path(found.origin).with_name("resizer.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    resizer = module.Resizer(size, "keep_ratio", True, encode_quality=95, skip_reencode=True)

    def call(data: bytes) -> bytes:
        out, *_, error = resizer(io.BytesIO(data))
        assert error is None, error
        return out

    return call


def drawings(number: int) -> list[Image.Image]:
    """Mosaics of the corpus's drawings over a slope of colours, (1500, 2000, 3)."""
    rng = np.random.default_rng(0)
    rows = pl.read_parquet(ROOT / "examples/emoji/raw.parquet", columns=["image"]).sample(number * 12, seed=0)
    data = [row["bytes"] for row in rows["image"].to_list()]
    made = []
    for i in range(number):
        ends = rng.integers(40, 216, (2, 2, 3)).astype(np.uint8)
        board = Image.fromarray(ends).resize((2000, 1500), Image.Resampling.BICUBIC)
        for k, drawing in enumerate(data[i * 12 : i * 12 + 12]):
            picture = (
                Image.open(io.BytesIO(drawing)).convert("RGBA").resize((460, 460), Image.Resampling.BICUBIC)
            )
            board.paste(picture, (20 + k % 4 * 500, 20 + k // 4 * 500), picture)
        made.append(board)
    return made


def photographs(folder: Path) -> list[Image.Image]:
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return [Image.open(path).convert("RGB") for path in found]


def jpegs(pictures: list[Image.Image], width: int, height: int, least: int) -> list[bytes]:
    """Cut to the shape, and with as much noise as brings them to `least` bytes at quality 90."""
    rng, files = np.random.default_rng(0), []
    for picture in pictures:
        scale = max(width / picture.width, height / picture.height)
        size = (max(width, round(picture.width * scale)), max(height, round(picture.height * scale)))
        pixels = np.asarray(picture.resize(size).crop((0, 0, width, height)), np.float32)
        noise = rng.normal(size=(height, width, 1)).astype(np.float32)
        for sigma in (0, 1, 2, 3, 4, 5, 6, 8, 10, 14):
            buffer = io.BytesIO()
            noisy = Image.fromarray((pixels + sigma * noise).clip(0, 255).astype(np.uint8))
            noisy.save(buffer, "JPEG", quality=90)
            if buffer.tell() >= least:
                break
        files.append(buffer.getvalue())
    return files


def rates(
    functions: dict[str, Callable[[bytes], object]], files: list[bytes], rounds: int
) -> dict[str, float]:
    """Files a second of processor time: each file in turns through all, the best time of each."""
    best = {name: [float("inf")] * len(files) for name in functions}
    for _ in range(rounds):
        for i, data in enumerate(files):
            for name, function in functions.items():
                start = time.thread_time()
                function(data)
                best[name][i] = min(best[name][i], time.thread_time() - start)
    return {name: len(files) / sum(times) for name, times in best.items()}


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float64)


def by_lanczos(full: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(height, width, 3) in floating point; Pillow's mode F."""
    planes = [Image.fromarray(full[..., c].astype(np.float32)) for c in range(3)]
    return np.stack([np.asarray(p.resize(size, Image.Resampling.LANCZOS)) for p in planes], axis=2).clip(
        0, 255
    )


def by_area(full: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Each pixel the mean over the area that it covers."""

    def weights(n: int, m: int) -> np.ndarray:
        edges = np.arange(m + 1) * (n / m)
        starts = np.arange(n)
        return (
            np.clip(np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts), 0, 1)
            * m
            / n
        )

    height, width = full.shape[:2]
    return np.einsum("ab,bcd,ec->aed", weights(height, size[1]), full, weights(width, size[0]), optimize=True)


def likeness(found: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """PSNR in dB, SSIM."""
    psnr = 10 * np.log10(255**2 / ((found - reference) ** 2).mean())
    a, b = (torch.from_numpy(x.transpose(2, 0, 1)[None].astype(np.float32)) for x in (found, reference))
    return float(psnr), float(structural_similarity_index_measure(a, b, data_range=255.0))


def encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def command(files: list[bytes], target: int, copies: int) -> float:
    """Images a second of processor time of the whole command, its start left out."""

    def seconds(number: int) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run = [
            "shard",
            "rows.jsonl",
            "-o",
            f"out{number}",
            "--resize",
            str(target),
            "--encode",
            "jpg",
            "-j",
            "1",
        ]
        head = ["--head", str(number), "-q"]
        subprocess.run([sys.executable, "-m", "vlcli", *run, *head], cwd=folder, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    with tempfile.TemporaryDirectory() as folder:
        for i, data in enumerate(files):
            (Path(folder) / f"{i}.jpg").write_bytes(data)
        number = len(files) * copies
        rows = [json.dumps({"image": f"{i % len(files)}.jpg", "text": f"第{i}张图"}) for i in range(number)]
        (Path(folder) / "rows.jsonl").write_text("\n".join(rows) + "\n")
        return (number - 1) / (seconds(number) - seconds(1))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--number", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=20)
    asked = parser.parse_args()
    pictures = photographs(asked.pictures) if asked.pictures else drawings(asked.number)
    for width, height, least in SIZES:
        files = jpegs(pictures, width, height, least)
        print(
            f"{len(files)} JPEGs of {width} × {height}, {sum(map(len, files)) / len(files) / 1000:.0f} kB each"
        )
        for target in TARGETS:
            theirs = img2dataset_resizer(target)
            small = {data: pixels(pack_image(data, "jpg", target).data) for data in files}
            stored = {data: Image.fromarray(small[data].astype(np.uint8)) for data in files}
            found = rates(
                {
                    "vlcli": lambda data, target=target: pack_image(data, "jpg", target),
                    "img2dataset": theirs,
                    "decode in full": lambda data: Image.open(io.BytesIO(data)).load(),
                    "encode": lambda data, stored=stored: encoded(stored[data]),
                },
                files,
                asked.rounds,
            )
            whole = command(
                files, target, max(1, 300 // len(files)) if width < 1000 else max(1, 100 // len(files))
            )
            floor = 1 / (1 / found["decode in full"] + 1 / found["encode"])
            print(f"  --resize {target}: {found['vlcli'] / found['img2dataset']:.2f}× img2dataset's images/s")
            print(
                f"    vlcli {found['vlcli']:.0f}/s, the whole command {whole:.0f}/s, img2dataset's resizer "
                f"{found['img2dataset']:.0f}/s; decoding in full and encoding alone {floor:.0f}/s"
            )
            for name, reference in (("Lanczos", by_lanczos), ("area", by_area)):
                judged: dict[str, list[tuple[float, float]]] = {"vlcli": [], "img2dataset": []}
                for data in files:
                    right = reference(pixels(data), small[data].shape[1::-1])
                    judged["vlcli"].append(likeness(small[data], right))
                    judged["img2dataset"].append(likeness(pixels(theirs(data)), right))
                means = {who: np.mean(values, axis=0) for who, values in judged.items()}
                print(
                    f"    against {name}: "
                    + ", ".join(f"{who} {psnr:.2f} dB SSIM {ssim:.4f}" for who, (psnr, ssim) in means.items())
                )


if __name__ == "__main__":
    main()
