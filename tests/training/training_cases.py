"""A tiny real run: sixty-four drawings of the corpus, a random EfficientNet, a text tower of one layer."""

from pathlib import Path

from vlcli.recipes import load_recipe
from vlcli.schemas.pretraining import Recipe
from vlcli.shards.pair_table import PairTable
from vlcli.shards.pairs import load_pairs

CORPUS = Path(__file__).parents[2] / "examples" / "emoji" / "raw.parquet"
RENAMES = {"name": "text", "keywords": "text_candidates"}


def pairs(rows: int = 64) -> PairTable:
    return load_pairs([str(CORPUS)], renames=RENAMES, head=rows)


TINY = (
    "model.dim=16",
    "model.image.init=random",
    "model.image.preprocess.size=64",
    "model.text.width=32",
    "model.text.layers=1",
    "model.text.heads=2",
    "model.image_projection.hidden=16",
    "data.batch_size=16",
    "schedule.epochs=3",
    "schedule.warmup_steps=2",
    "train.precision=fp32",
    "train.log_every=1",
    "train.save_every=3",
    "train.evaluate_every=4",
)


def recipe(tmp_path: Path, *overrides: str) -> Recipe:
    return load_recipe("emoji-lit-filip", [*TINY, f"data.cache={tmp_path / 'cache'}", *overrides])


class Silent:
    """A reporter that remembers what it was told."""

    def __init__(self):
        self.warnings, self.steps, self.plans, self.found = [], [], [], []

    def plan(self, plan):
        self.plans.append(plan)

    def features(self, done, total):
        pass

    def step(self, step, total, values):
        self.steps.append((step, values))

    def validated(self, step, found, best):
        self.found.append((step, found, best))

    def saved(self, path):
        pass

    def warn(self, text):
        self.warnings.append(text)
