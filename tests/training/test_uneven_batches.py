"""Batches that processes cannot share evenly, or whose pictures are bad on one of them, give what one process gives."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from training_cases import CORPUS, RENAMES, recipe

from vlcli.models.dual import DualEncoder
from vlcli.objectives.contrastive import total_loss
from vlcli.shards.pairs import load_pairs
from vlcli.training.loader import Loader
from vlcli.training.objective import Objective

PAIRS, BATCH = 18, 8  # 8, 8 and 2: of the last, two of four processes have nothing
BAD = (1, 4, 5, 9)
CASES = {
    "tokenwise": ("objective.negatives=0.5",),
    "global": ("model.similarity=global", "objective.label_smoothing=0.1"),
    "selected": ("objective.tokens.keep=0.5",),
}


def train(folder: Path, rank: int, world: int) -> dict[str, list[dict[str, torch.Tensor]]]:
    """For each case the loss and every gradient of three steps, averaged over processes as DDP does it."""
    table = load_pairs([str(folder / "rows.jsonl")])
    found: dict[str, list[dict[str, torch.Tensor]]] = {}
    for name, overrides in CASES.items():
        torch.manual_seed(0)
        settings = (
            "data.workers=0",
            f"data.batch_size={BATCH}",
            "data.last=keep",
            "data.augment=resized-crop",
        )
        resolved = recipe(folder, "data.cache=off", *settings, *overrides)
        model = DualEncoder(resolved.model)
        objective = Objective(model, resolved.objective, seed=0)
        told: list[str] = []
        load = Loader(
            table, model, resolved.data, seed=0, rank=rank, world=world, max_bad="4", warn=told.append
        )
        found[name] = []
        for step, raw in enumerate(load.batches(0, 3)):
            batch = raw.to(torch.device("cpu"), model.preprocess)
            image, text, scale = model(batch.ids, batch.mask, pixels=batch.pixels, keys=batch.keys)
            loss = total_loss(objective(image, text, scale, batch.codes, batch.local, step))
            model.zero_grad()
            loss.backward()
            values = {"loss": loss.detach(), "pairs": torch.tensor(float(len(batch.pair_ids)))}
            for parameter, weights in model.named_parameters():
                if weights.requires_grad:
                    values[parameter] = (
                        torch.zeros_like(weights) if weights.grad is None else weights.grad.clone()
                    )
            if world > 1:
                for value in values.values():
                    dist.all_reduce(value)
                    value /= world
            found[name].append(values)
        found[name].append({"told": torch.tensor(len(told))})
    return found


def worker(rank: int, world: int, port: int, folder: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    found = train(folder, rank, world)
    if rank == world - 1:
        torch.save(found, folder / f"{world}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("uneven")
    source = load_pairs([str(CORPUS)], renames=RENAMES, head=PAIRS)
    with open(made / "rows.jsonl", "w") as rows:
        for i in range(PAIRS):
            (made / f"{i}.png").write_bytes(b"<html>" if i in BAD else source.image_bytes(i))
            rows.write(json.dumps({"id": f"p{i}", "image": f"{i}.png", "text": source.texts[i]}) + "\n")
    return made


@pytest.fixture(scope="module")
def alone(folder):
    return train(folder, 0, 1)


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo")
@pytest.mark.parametrize("world", [2, 4])
def test_many_processes_equal_one(folder, alone, world):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(worker, args=(world, port, folder), nprocs=world)
    found = torch.load(folder / f"{world}.pt", weights_only=True)
    assert sum(step["pairs"] for step in alone["global"][:3]) == PAIRS - len(BAD)
    for name, steps in alone.items():
        for one, many in zip(steps, found[name], strict=True):
            assert one.keys() == many.keys()
            for key, value in one.items():
                torch.testing.assert_close(
                    many[key],
                    value,
                    rtol=1e-5 if key == "loss" else 1e-4,
                    atol=1e-5 * value.abs().max().item() + 1e-8,
                    msg=lambda m, where=(name, key): f"{where}: {m}",
                )
