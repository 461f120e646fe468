"""Training of priors and decoders: what chance says of a pair, the loss written out, resume, averages, validation."""

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from training_cases import Silent

import vlcli
from vlcli.errors import UsageError
from vlcli.generation.unclip import text_condition
from vlcli.models.checkpoint import load_decoder, load_prior
from vlcli.models.quickcheck import check_run
from vlcli.recipes import load_finetune_recipe, load_stage_recipe, to_toml
from vlcli.shards.pairs import load_pairs
from vlcli.training.decoder import DecoderTraining
from vlcli.training.diffusion_validation import PriorValidation, noisy_losses, other_rows
from vlcli.training.image_embeddings import ImageEmbeddings
from vlcli.training.noisy import chance
from vlcli.training.prior import PriorTraining

sys.path.append(str(Path(__file__).parents[1] / "generation"))
from unclip_cases import DECODER, PRIOR, dual, rows, saved

SHAPES = {"prior": PRIOR, "decoder": DECODER}
KINDS = {"prior": PriorTraining, "decoder": DecoderTraining}
STAGES = list(KINDS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(the dual encoder's checkpoint, eighteen pairs, the cache of its features)"""
    folder = tmp_path_factory.mktemp("made")
    table = load_pairs([str(rows(folder / "pairs", copies=3))])
    return saved(dual(), folder / "clip"), table, folder / "cache"


def recipe(stage, cache, *more):
    shape = [f"model.{name}={value}" for name, value in SHAPES[stage].items()]
    run = [
        "data.batch_size=4",
        "data.workers=0",
        "schedule.steps=6",
        "schedule.warmup_steps=1",
        "train.log_every=1",
    ]
    run += [
        "train.precision=fp32",
        "train.evaluate_every=3",
        "train.save_every=2",
        "train.keep=9",
        "optimizer.lr=1e-2",
    ]
    return load_stage_recipe(f"r2d2-t2i-{stage}", stage, [*shape, *run, f"data.cache={cache}", *more])


def training(stage, made, out, *more, clip=None, **options):
    place, table, cache = made
    reporter = Silent()
    encoder = vlcli.load(clip or place)
    run = KINDS[stage](recipe(stage, cache, *more), encoder, table, out, reporter, device="cpu", **options)
    return run, reporter


def weights(run, step):
    return load_file(run / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def test_chance_is_of_the_key_alone():
    all_, one = chance([1, 2, 3], (2, 2), levels=1000, drop=0.5), chance([2], (2, 2), levels=1000, drop=0.5)
    assert all(torch.equal(x[1:2], y) for x, y in zip(all_, one, strict=True))
    many = chance(range(4000), (1,), levels=10, drop=0.1)
    counts = torch.bincount(many.level, minlength=10)
    assert (counts > 330).all()
    assert (counts < 470).all()
    assert 0.08 < many.gone.float().mean() < 0.12
    assert not chance(range(100), (1,), levels=2, drop=0.0).gone.any()
    generator = torch.Generator().manual_seed(7)
    level, gone = torch.randint(1000, (), generator=generator), torch.rand((), generator=generator) < 0.5
    drawn = chance([7], (3,), levels=1000, drop=0.5)
    assert (drawn.level[0], drawn.gone[0]) == (level, gone)
    assert torch.equal(drawn.noise[0], torch.randn(3, generator=generator))


def test_the_loss_of_a_prior_as_it_is_written(made, tmp_path):
    run, _ = training("prior", made, tmp_path / "run", "objective.drop=0.5", "data.batch_size=8")
    (batch,) = run.batches(0, 1)
    place, table, _ = made
    clip, process = vlcli.load(place), run.process
    texts = {name: text for name, (text,) in zip(table.ids, table.texts, strict=True)}
    images = {name: table.image_bytes(i) for i, name in enumerate(table.ids)}
    total, gone = 0.0, []
    for name, key in zip(batch.pair_ids, batch.keys.tolist(), strict=True):
        drawn = chance([key], (12,), levels=1000, drop=0.5)
        gone.append(bool(drawn.gone))
        pixels = clip.preprocess(Image.open(io.BytesIO(images[name])))[None]
        clean = run.model.standardise(clip.encode_image(pixels).pooled)
        kept = process.kept[drawn.level][:, None]
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * drawn.noise
        told = text_condition(clip, *clip.tokenize([texts[name]]))
        if gone[-1]:
            told = told._replace(pooled=torch.zeros(1, 12), mask=torch.zeros_like(told.mask))
        total += float((run.model(noisy, drawn.level, told) - clean).detach().square().mean())
    assert any(gone)
    assert not all(gone)
    assert float(run.losses(run.model, batch, 0).loss) == pytest.approx(total / 8, rel=1e-4)


def test_the_loss_of_a_decoder_as_it_is_written(made, tmp_path):
    run, _ = training("decoder", made, tmp_path / "run", "objective.drop=0.5")
    (batch,) = run.batches(0, 1)
    place, table, _ = made
    clip, process = vlcli.load(place), run.process
    total = 0.0
    where = {name: i for i, name in enumerate(table.ids)}
    for name, key in zip(batch.pair_ids, batch.keys.tolist(), strict=True):
        picture = Image.open(io.BytesIO(table.image_bytes(where[name]))).convert("RGB")
        pixels = torch.from_numpy(np.array(picture.resize((16, 16), Image.Resampling.BICUBIC))).permute(
            2, 0, 1
        )
        clean = (pixels / 127.5 - 1)[None]
        drawn = chance([key], (3, 16, 16), levels=1000, drop=0.5)
        kept = process.kept[drawn.level][:, None, None, None]
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * drawn.noise
        embedding = run.model.standardise(clip.encode_image(clip.preprocess(picture)[None]).pooled)
        said = run.model(noisy, drawn.level, embedding * (~drawn.gone)[:, None])
        total += float((said - drawn.noise).detach().square().mean())
    assert float(run.losses(run.model, batch, 0).loss) == pytest.approx(total / 4, rel=1e-4)


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_leaves_a_whole_checkpoint_that_names_its_encoder(stage, made, tmp_path):
    place, table, _ = made
    out = tmp_path / "run"
    run, reporter = training(stage, made, out, validation=table)
    before = {name: x.clone() for name, x in run.encoder.state_dict().items()}
    result = run.run()
    assert result["steps"] == 6
    assert check_run(out, deep=True).findings == []
    model = (load_prior if stage == "prior" else load_decoder)(out)
    clip = vlcli.load(place)
    assert model.config.encoder == clip.checkpoint_hash
    assert all(torch.equal(before[name], x) for name, x in clip.state_dict().items()), "the encoder is fixed"
    assert all(torch.equal(before[name], x) for name, x in run.encoder.state_dict().items())
    # standardised by the mean and deviation of the training data
    vectors = torch.cat(
        [clip.encode_image(clip.preprocess(picture(table, i))[None]).pooled for i in range(len(table))]
    )
    standard = model.standardise(vectors).detach()
    assert torch.allclose(standard.mean(0), torch.zeros(12), atol=1e-4)
    assert torch.allclose(standard.std(0, correction=0), torch.ones(12), atol=1e-3)
    config = json.loads((out / "last" / "config.json").read_text())
    assert (config["kind"], config["recipe"]["stage"]) == (stage, stage)
    assert [step for step, *_ in reporter.found] == [3, 6]
    found = reporter.found[-1][1]
    assert {"n", "loss", "unconditional_loss", "shuffled_loss"} <= found.keys()
    assert found["n"] == 18
    assert ("t2i" in found) == (stage == "prior")
    assert result["best"] == pytest.approx(max(-one["loss"] for _, one, _ in reporter.found))


def picture(table, row):
    return Image.open(io.BytesIO(table.image_bytes(row)))


@pytest.mark.parametrize("stage", STAGES)
def test_resumed_equals_uninterrupted_bit_for_bit(stage, made, tmp_path):
    whole, part = tmp_path / "whole", tmp_path / "part"
    more = ["train.ema=0.9", "model.dropout=0.3"]
    training(stage, made, whole, *more)[0].run()
    shutil.copytree(whole, part, symlinks=True)
    for step in (4, 6):
        shutil.rmtree(part / "checkpoints" / f"step-{step:08d}")
    run, _ = training(stage, made, part, *more, resume=True)
    assert run.engine.step == 2
    run.run()
    for step in (4, 6):
        a, b = weights(whole, step), weights(part, step)
        assert all(torch.equal(a[name], b[name]) for name in a)
    other = saved(dual().requires_grad_(False), tmp_path / "other")
    with torch.no_grad():
        model = dual()
        model.image_projection.weight.add_(1)
    saved(model, other)
    with pytest.raises(UsageError, match="--resume: encoder was"):
        training(stage, made, part, *more, resume=True, clip=other)
    with pytest.raises(UsageError, match=r"--resume: objective.drop was 0.1, is 0.2"):
        training(stage, made, part, *more, "objective.drop=0.2", resume=True)


@pytest.mark.parametrize("stage", STAGES)
def test_in_chunks_the_gradients_are_the_same(stage, made, tmp_path):
    first, second = (
        training(stage, made, tmp_path / name, *more, force=True)[0]
        for name, more in (("a", ()), ("b", ("train.chunk=3",)))
    )
    (batch,) = first.batches(0, 1)
    one, two = first.losses(first.model, batch, 0), second.losses(second.model, batch, 0)
    one.loss.backward()
    two.backward()
    assert float(one.loss) == pytest.approx(float(two.loss), rel=1e-5)
    for (name, x), (_, y) in zip(
        first.model.named_parameters(), second.model.named_parameters(), strict=True
    ):
        if x.requires_grad:  # each has a gradient, or processes would wait for it in vain
            assert torch.allclose(x.grad, y.grad, rtol=1e-3, atol=1e-6), name


def test_the_average_is_warmed_up(made, tmp_path):
    """After a few steps an average that decays by 0.9999 would be the random weights it started from."""
    out = tmp_path / "run"
    run, _ = training("prior", made, out, "train.ema=0.9999", "train.save_every=1")
    start = {name: x.detach().clone() for name, x in run.model.named_parameters()}
    run.run()
    average = dict(start)
    for step in range(1, 7):
        trained = torch.load(out / "checkpoints" / f"step-{step:08d}" / "training.pt", weights_only=True)[
            "weights"
        ]
        decay = min(0.9999, (1 + step) / (10 + step))
        average |= {name: decay * average[name] + (1 - decay) * x for name, x in trained.items()}
    saved_ = weights(out, 6)
    assert all(torch.allclose(saved_[name], average[name], atol=1e-6) for name in average)
    name = "body.proj_to_clip_embeddings.weight"
    assert (saved_[name] - trained[name]).norm() < (saved_[name] - start[name]).norm()


def test_other_rows():
    for count in (2, 3, 7, 34):
        others = other_rows(count)
        assert sorted(others) == list(range(count))
        assert (others != np.arange(count)).all()
    assert other_rows(1).tolist() == [0]


def test_three_losses_of_a_model_that_believes_its_condition(made, tmp_path):
    """Told the sample, it says the sample: no loss with the right condition, and what is between rows with another."""
    run, _ = training("prior", made, tmp_path / "run")
    values = torch.randn(5, 4)
    found = noisy_losses(
        lambda noisy, level, told: told,
        run.process,
        list("abcde"),
        lambda rows: values[rows],
        lambda rows: values[rows],
        torch.zeros_like,
    )
    assert found["loss"] == 0
    assert found["unconditional_loss"] == pytest.approx(float(values.square().mean()), rel=1e-5)
    shuffled = float((values - values[other_rows(5)]).square().mean())
    assert found["shuffled_loss"] == pytest.approx(shuffled, rel=1e-5)


def test_the_recall_of_embeddings_that_are_drawn(made):
    """Those of a prior that knows every picture find it; the texts' own are what retrieve says of them."""
    place, table, cache = made
    clip = vlcli.load(place)
    embeddings = ImageEmbeddings(clip, recipe("prior", cache).data, precision="fp32")
    validation = PriorValidation(table, clip, embeddings, steps=2, precision="fp32")
    assert validation.names == list(table.ids)
    torch.manual_seed(0)
    validation.images = torch.nn.functional.normalize(torch.randn(18, 12), dim=-1)
    assert validation._recall(fake(validation.images))["R@1"] == 100
    turned = validation._recall(fake(validation.images.roll(1, 0)))
    assert turned["R@1"] < 50
    from vlcli.evaluation.embed import embed_images, embed_texts, similarity_of
    from vlcli.evaluation.retrieval import retrieval

    texts = embed_texts(clip, validation.gallery.texts)
    direct = retrieval(similarity_of(clip), embed_images(clip, table), texts, validation.gallery.positives)
    assert validation.text_recall == direct["t2i"]


def fake(vectors):
    from vlcli.models.dual import TextTokens

    none = torch.empty(len(vectors), 0, dtype=torch.bool)
    return TextTokens(None, none, none, vectors)


def test_features_are_computed_once_and_only_as_many_as_allowed(made, tmp_path):
    place, table, _ = made
    training("prior", (place, table, tmp_path / "cache"), tmp_path / "a")
    (file,) = (tmp_path / "cache").glob("*/features.bin")
    size = file.stat().st_size
    training("decoder", (place, table, tmp_path / "cache"), tmp_path / "b")
    assert file.stat().st_size == size
    with pytest.raises(UsageError, match=r"more than data.cache_gib; --set data.cache_gib=1"):
        training("prior", made, tmp_path / "c", "data.cache_gib=1e-9")
    run, _ = training("prior", (place, table, "off"), tmp_path / "d")
    assert Path(run.embeddings._temporary.name) in run.embeddings.store.folder.parents


def test_a_dual_encoder_that_compares_tokens_is_refused(made, tmp_path):
    clip = saved(dual("tokenwise"), tmp_path / "clip")
    with pytest.raises(UsageError, match="one vector for an image"):
        training("prior", made, tmp_path / "run", clip=clip)
    assert not (tmp_path / "run").exists()


def test_recipes_of_stages(tmp_path):
    for stage in STAGES:
        found = load_stage_recipe(f"r2d2-t2i-{stage}", stage)
        assert (found.peak_lr, found.data.batch_size, found.schedule.epochs) == (1e-4, 16, 20)
        (tmp_path / "again.toml").write_text(to_toml(found), encoding="utf-8")
        assert load_stage_recipe(str(tmp_path / "again.toml"), stage) == found
    with pytest.raises(UsageError, match="recipe r2d2-t2i-prior is of --stage prior"):
        load_stage_recipe("r2d2-t2i-prior", "decoder")
    with pytest.raises(UsageError, match="recipe r2d2-retrieval is none of --task t2i"):
        load_stage_recipe("r2d2-retrieval", "prior")
    with pytest.raises(UsageError, match="is of --task t2i --stage prior"):
        load_finetune_recipe("r2d2-t2i-prior", {})
    with pytest.raises(UsageError, match=r"data.augment"):
        load_stage_recipe("r2d2-t2i-prior", "prior", ["data.augment=crop-flip"])
    with pytest.raises(UsageError, match=r"model.chanels: no such key; did you mean 'channels'"):
        load_stage_recipe("r2d2-t2i-decoder", "decoder", ["model.chanels=[3]"])
    with pytest.raises(UsageError, match=r"train.best"):
        load_stage_recipe("r2d2-t2i-decoder", "decoder", ["train.best=R@1"])
