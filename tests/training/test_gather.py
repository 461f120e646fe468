"""Processes on shares of a batch, equal or not, get the gradients of one on the whole, and of open_clip on two."""

import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from vlcli.models.dual import ImageTokens, TextTokens
from vlcli.objectives.contrastive import contrastive_loss
from vlcli.objectives.late_interaction import global_similarity, late_interaction
from vlcli.training.gather import gather_images, gather_texts

N, DIM = 8, 12
SHARES = [(4, 4), (5, 3), (2, 2, 2, 2), (3, 2, 2, 1)]  # of the batch, process by process


def inputs():
    g = torch.Generator().manual_seed(0)
    image, text = torch.randn(N, 5, DIM, generator=g), torch.randn(N, 6, DIM, generator=g)
    lengths = torch.tensor([6, 3, 4, 5, 2, 3, 4, 3])
    mask = torch.arange(6)[None] < lengths[:, None]
    # the scale is a parameter of both sides, as the temperature is
    return image, text, mask, torch.tensor(2.0, requires_grad=True), torch.eye(DIM).requires_grad_()


def loss_of(image, text, mask, scale, weight, local):
    """The loop's path: project, gather, local loss."""
    positives = torch.eye(N).bool()
    length = max([1, *mask.sum(1).tolist()])  # each process pads to its own longest text
    mask, text = mask[:, :length], text[:, :length]
    images = ImageTokens(F.normalize(image @ weight, dim=-1), None)
    texts = TextTokens(F.normalize(text @ weight, dim=-1), mask, mask, None)
    all_images, all_texts = gather_images(images), gather_texts(texts)
    rows = late_interaction(images.tokens, all_texts.tokens, all_texts.mask)
    columns = late_interaction(all_images.tokens, texts.tokens, texts.mask)
    world = dist.get_world_size() if dist.is_initialized() else 1
    return contrastive_loss(rows, columns, scale, positives[local], positives[:, local], count=N / world)[
        "contrastive_loss"
    ]


def vectors_loss(image, text, scale, weight, local):
    """The loop's path of a global model; also open_clip's own loss on the same vectors, exact for both."""
    from open_clip.loss import ClipLoss

    positives = torch.eye(N).bool()
    images = ImageTokens(None, F.normalize(image[:, 0] @ weight, dim=-1))
    mask = torch.ones(len(text), 1).bool()
    texts = TextTokens(None, mask, mask, F.normalize(text[:, 0] @ weight, dim=-1))
    rows = global_similarity(images.pooled, gather_texts(texts).pooled)
    columns = global_similarity(gather_images(images).pooled, texts.pooled)
    ours = contrastive_loss(rows, columns, scale, positives[local], positives[:, local])["contrastive_loss"]
    theirs = ClipLoss(local_loss=True, gather_with_grad=True, rank=dist.get_rank(), world_size=2)
    return ours, theirs(images.pooled, texts.pooled, scale)


def worker(rank, port, shares, out):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=len(shares))
    image, text, mask, scale, weight = inputs()
    local = slice(sum(shares[:rank]), sum(shares[: rank + 1]))
    loss = loss_of(image[local], text[local], mask[local], scale, weight, local)
    loss.backward()
    values = [loss.detach(), scale.grad, weight.grad]
    for value in values:  # what DDP does with gradients
        dist.all_reduce(value)
        value /= len(shares)
    both = []
    if shares == (4, 4):
        losses = vectors_loss(image[local], text[local], scale, weight, local)
        both = [
            [loss.detach(), *torch.autograd.grad(loss, (scale, weight), retain_graph=True)] for loss in losses
        ]
    if rank == 0:
        torch.save([values, *both], out)
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo")
@pytest.mark.parametrize("shares", SHARES, ids=lambda shares: "-".join(map(str, shares)))
def test_processes_equal_one(tmp_path, shares):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(worker, args=(port, shares, str(tmp_path / "out.pt")), nprocs=len(shares))
    got, *both = torch.load(tmp_path / "out.pt", weights_only=True)
    for ours, theirs in [both] if shares == (4, 4) else []:
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    image, text, mask, scale, weight = inputs()
    loss = loss_of(image, text, mask, scale, weight, slice(0, N))
    loss.backward()
    for mine, want in zip(got, [loss.detach(), scale.grad, weight.grad], strict=True):
        torch.testing.assert_close(mine, want, rtol=1e-5, atol=1e-6)
