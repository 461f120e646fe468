"""A tiny teacher and a tiny student: forty sentences in three languages, a CLIP of random weights."""

from pathlib import Path

import orjson
import torch
from training_cases import recipe

from vlcli.models.checkpoint import save_checkpoint
from vlcli.models.dual import DualEncoder
from vlcli.recipes import load_distill_recipe
from vlcli.schemas.distillation import DistillRecipe

WIDTH = 32  # of the teacher's text tower
COLOURS = ("red", "blue", "green", "white", "black")
THINGS = ("fox", "bear", "dog", "cat", "horse", "bird", "fish", "cow")
CHINESE = dict(zip(COLOURS + THINGS, "红蓝绿白黑狐熊狗猫马鸟鱼牛", strict=True))

TINY = (
    "model.text.encoder.hidden_size=16",
    "model.text.encoder.num_hidden_layers=1",
    "model.text.encoder.num_attention_heads=2",
    "model.text.encoder.intermediate_size=32",
    "model.text.encoder.vocab_size=21128",
    "model.text.tokenizer=wordpiece-zh",
    f"model.text.head.width={WIDTH}",
    'distill.languages=["en", "zh", "fr"]',
    "schedule.epochs=3",
    "schedule.warmup_steps=2",
    "data.batch_size=16",
    "data.window=4",
    "train.precision=fp32",
    "train.log_every=1",
    "train.save_every=3",
    "train.evaluate_every=5",
    "train.keep=9",
)


def rows() -> list[dict[str, str]]:
    """A table: English, Chinese, and French for every second sentence."""
    found = []
    for number, (colour, thing) in enumerate((c, t) for c in COLOURS for t in THINGS):
        row = {"en": f"a {colour} {thing}", "zh": CHINESE[colour] + CHINESE[thing], "source": "made"}
        row["fr"] = f"le {thing} {colour} dans la neige" if number % 2 else ""
        found.append(row)
    return found


def write_rows(path: Path, found: list[dict[str, str]]) -> str:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in found))
    return str(path)


def teacher(folder: Path, *overrides: str) -> str:
    """A checkpoint of a dual encoder of global similarity."""
    torch.manual_seed(1)
    model = DualEncoder(recipe(folder, "model.similarity=global", *overrides).model)
    save_checkpoint(model, folder / "teacher", recipe={}, lineage={})
    return str(folder / "teacher")


def distill_recipe(folder: Path, *overrides: str) -> DistillRecipe:
    settings = [*TINY, f"data.cache={folder / 'cache'}", *overrides]
    return load_distill_recipe("emoji-altclip-teacher", settings)
