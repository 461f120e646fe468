"""Tokens a second of a student, beside a plain loop over transformers' model with texts padded to one length.

python tests/bench/distill.py [STEPS [TURNS]]

Both train the same encoder (XLM-R's architecture, 4 layers of 256) with the same head, batch, optimizer and clipping on
the names of the emoji corpus in nine languages; the teacher's vectors are at hand for both. The plain loop is what a
Trainer does: random batches, padded to the context. A third one pads to the longest text of its batch. They take turns,
so that a busy machine slows all of them; a ratio is of the rates of one turn. Only tokens that are none of the padding
count.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from vlcli.recipes import load_distill_recipe
from vlcli.text.model_tokenizers import open_tokenizer
from vlcli.training.distillation import Distillation

CORPUS = Path(__file__).parents[2] / "examples" / "emoji" / "raw.parquet"
LANGUAGES = ("zh", "es", "fr", "ru", "ar", "ja", "ko", "it")
CONTEXT, BATCH, WIDTH = 32, 64, 512
SETTINGS = (
    "model.text.encoder.hidden_size=256",
    "model.text.encoder.num_hidden_layers=4",
    "model.text.encoder.num_attention_heads=4",
    "model.text.encoder.intermediate_size=1024",
    "model.text.encoder.vocab_size=21128",
    "model.text.tokenizer=wordpiece-zh",
    f"data.batch_size={BATCH}",
    "train.precision=fp32",
    "train.log_every=1",
    "train.save_every=0",
    "train.evaluate_every=0",
)


class Clock:
    """A reporter that remembers when each step ended."""

    def __init__(self):
        self.ends = []

    def step(self, step, total, values):
        self.ends.append(time.perf_counter())

    def ignore(self, *_):
        pass

    plan = features = validated = saved = warn = ignore


def texts():
    """Rows of a table: English and eight more languages."""
    columns = ["hexcode", "name", *(f"name_{language}" for language in ("en", *LANGUAGES[1:]))]
    corpus = pl.read_parquet(CORPUS, columns=columns).unique("hexcode", maintain_order=True)
    for row in corpus.iter_rows(named=True):
        yield {"en": row["name_en"], "zh": row["name"]} | {x: row[f"name_{x}"] for x in LANGUAGES[1:]}


def ours(folder, steps):
    """(tokens a second, share of padding among what is computed) of the engine."""
    recipe = load_distill_recipe(
        "emoji-altclip-teacher", [*SETTINGS, f"schedule.steps={steps + 1}", f"data.cache={folder / 'cache'}"]
    )
    clock = Clock()
    run = Distillation(
        recipe, [str(folder / "table.jsonl")], str(folder / "vectors.jsonl"), folder / "run", clock,
        device="cpu", force=True,
    )  # fmt: skip
    run.run()
    tokens = sum(int(run.table.lengths[run.loader.rows_of(step)[1]].sum()) for step in range(1, steps + 1))
    return tokens / (clock.ends[-1] - clock.ends[0])


class Student(nn.Module):
    """transformers' encoder, a LayerNorm and a linear layer on [CLS]."""

    def __init__(self, encoder):
        super().__init__()
        values = {key: value for key, value in encoder.items() if key != "model_type"}
        config = AutoConfig.for_model(encoder["model_type"], **values)
        self.body = AutoModel.from_config(config, add_pooling_layer=False)
        self.head = nn.Sequential(nn.LayerNorm(config.hidden_size), nn.Linear(config.hidden_size, WIDTH))

    def forward(self, ids, mask):
        return self.head(self.body(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0])


def plain(pairs, vectors, steps, *, fixed):
    """Tokens a second of the loop that everybody writes."""
    tokenizer = open_tokenizer("wordpiece-zh")
    model = Student(load_distill_recipe("emoji-altclip-teacher", list(SETTINGS)).model.text.encoder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)

    def collate(rows):
        ids, mask = tokenizer.encode([pairs[row][1] for row in rows], length=CONTEXT)
        if fixed:
            missing = CONTEXT - ids.shape[1]
            ids, mask = np.pad(ids, ((0, 0), (0, missing))), np.pad(mask, ((0, 0), (0, missing)))
        target = np.stack([vectors[pairs[row][0]] for row in rows])
        return torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(target)

    loader = torch.utils.data.DataLoader(
        range(len(pairs)), batch_size=BATCH, shuffle=True, drop_last=True, collate_fn=collate
    )
    tokens, started = 0, 0.0
    for step, (ids, mask, target) in enumerate(loader):
        if step == 1:  # as of ours, the first step is not timed
            tokens, started = 0, time.perf_counter()
        tokens += int(mask.sum())
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.mse_loss(model(ids, mask.long()), target)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step == steps:
            break
    return tokens / (time.perf_counter() - started)


def main(steps, turns):
    table = list(texts())
    rng = np.random.default_rng(0)
    vectors = {row["en"]: rng.standard_normal(WIDTH).astype(np.float32) for row in table}
    pairs = [(row["en"], said) for row in table for said in row.values()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "table.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in table))
        lines = ({"en": text, "vector": vector.tolist()} for text, vector in vectors.items())
        (folder / "vectors.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
        found = []
        for turn in range(turns):
            rates = (
                ours(folder, steps),
                plain(pairs, vectors, steps, fixed=True),
                plain(pairs, vectors, steps, fixed=False),
            )
            found.append(rates)
            own, fixed, longest = rates
            print(
                f"turn {turn}: {own:,.0f} tokens/s; padded to {CONTEXT} {fixed:,.0f}, ratio {own / fixed:.2f};"
                f" padded to the batch's longest {longest:,.0f}, ratio {own / longest:.2f}",
                flush=True,
            )
    for place, what in ((1, f"padded to {CONTEXT}"), (2, "padded to the longest")):
        ratio = statistics.median(rates[0] / rates[place] for rates in found)
        print(f"median ratio to a loop {what}: {ratio:.2f}")


if __name__ == "__main__":
    torch.manual_seed(0)
    main(*map(int, (*sys.argv[1:], *("30", "3")[len(sys.argv) - 1 :])))
