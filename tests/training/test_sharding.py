"""Weights shared out among processes: steps, lengths and checkpoints are those of one that has them all."""

import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from vlcli.training.averages import Averages
from vlcli.training.lamb import Lamb
from vlcli.training.sharding import _blocks, clip_grad_norm, load_optimizer, put, whole

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo")
OPTIMIZERS = {"lamb": Lamb, "adamw": torch.optim.AdamW}


class Model(nn.Module):
    """Two blocks of odd sizes, a number that stands alone, and something that is not trained."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Linear(5, 5) for _ in range(2))
        self.locked = nn.Linear(5, 5).requires_grad_(False)
        self.norm = nn.LayerNorm(5)
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        x = self.locked(x)
        for block in self.blocks:
            x = block(x).tanh()
        return self.norm(x) * self.scale


def train(model, optimizer, rows, *, steps, bound):
    """Lengths of the gradients, of a batch of which `rows` are this process's."""
    lengths = []
    for step in range(steps):
        batch = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
        model(batch[rows]).pow(3).mean().backward()
        if dist.is_initialized():
            dist.all_reduce(model.scale.grad)
            model.scale.grad /= dist.get_world_size()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        lengths.append(float(clip_grad_norm(parameters, bound)))
        optimizer.step()
        optimizer.zero_grad()
    return lengths


def begin(kind):
    model = Model()
    trained = [p for p in model.parameters() if p.requires_grad]
    return model, OPTIMIZERS[kind](trained, lr=0.05, weight_decay=0.1)


def result(model, optimizer, averages, lengths, *, keep=True):
    parts = whole([model.state_dict(), optimizer.state_dict(), averages.tensors], keep=keep)
    return [*parts, lengths]


def worker(rank, port, out):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = {}
    rows = slice(4 * rank, 4 * rank + 4)
    for kind in OPTIMIZERS:
        saved = torch.load(f"{out}/{kind}.pt", weights_only=True)
        for name, start in (("whole", 0), ("resumed", 2)):
            model, _ = begin(kind)
            for block in (*model.blocks, model):
                fully_shard(block, ignored_params={model.scale})
            trained = [p for p in model.parameters() if p.requires_grad]
            optimizer = OPTIMIZERS[kind](trained, lr=0.05, weight_decay=0.1)
            if start:
                for x, value in zip(model.state_dict().values(), saved[0].values(), strict=True):
                    put(x, value)
                load_optimizer(optimizer, saved[1])
                assert sum(isinstance(e["exp_avg"], DTensor) for e in optimizer.state.values()) == 6
            averages = Averages(model, 0.5)
            lengths = train(model, optimizer, rows, steps=2, bound=0.5)
            averages.update(model, 100)
            found[f"{kind} {name}"] = result(model, optimizer, averages, lengths, keep=rank == 0)
            assert rank == 0 or found[f"{kind} {name}"][0]["norm.weight"] is None
    if rank == 0:
        torch.save(found, f"{out}/found.pt")
    dist.destroy_process_group()


def test_shared_out_is_trained_saved_and_resumed_as_whole(tmp_path):
    wanted = {}
    for kind in OPTIMIZERS:
        model, optimizer = begin(kind)
        averages = Averages(model, 0.5)
        lengths = train(model, optimizer, slice(0, 8), steps=2, bound=0.5)
        assert max(lengths) > 0.5, "the bound is felt"
        torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / f"{kind}.pt")
        averages.update(model, 100)
        wanted[f"{kind} whole"] = result(model, optimizer, averages, lengths)
        wanted[f"{kind} whole"][:2] = torch.load(tmp_path / f"{kind}.pt", weights_only=True)
        averages = Averages(model, 0.5)
        lengths = train(model, optimizer, slice(0, 8), steps=2, bound=0.5)
        averages.update(model, 100)
        wanted[f"{kind} resumed"] = result(model, optimizer, averages, lengths)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(worker, args=(port, str(tmp_path)), nprocs=2)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    for name, parts in wanted.items():
        torch.testing.assert_close(
            {k: v for k, v in found[name][1].items() if k == "state"},
            {k: v for k, v in parts[1].items() if k == "state"},
            rtol=1e-4,
            atol=1e-6,
        )
        assert found[name][1]["param_groups"] == parts[1]["param_groups"]
        for part in (0, 2, 3):
            torch.testing.assert_close(found[name][part], parts[part], rtol=1e-4, atol=1e-6)


def test_blocks_stand_in_a_row_of_their_like():
    model = Model()
    assert list(_blocks(model)) == list(model.blocks)
    stages = nn.Sequential(
        nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Sequential(nn.ReLU(), nn.ReLU())
    )
    assert list(_blocks(nn.ModuleDict({"stages": stages}))) == list(stages[0])
