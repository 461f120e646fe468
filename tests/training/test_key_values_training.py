"""Keys and values in training: the loss by its formula, what changes and what does not, and runs that go on."""

import json
import shutil

import pytest
import torch
from diffusion_cases import WIDTH, encoder, recipe, save_diffusion, save_encoder, write_pairs
from safetensors.torch import load_file
from training_cases import Silent

from vlcli.errors import UsageError
from vlcli.models.conditioner import Conditioner, open_encoder
from vlcli.models.diffusion_directory import open_diffusion
from vlcli.models.key_values import load_key_values
from vlcli.models.quickcheck import check_run
from vlcli.recipes import load_finetune_recipe, load_key_values_recipe
from vlcli.shards.pairs import load_pairs
from vlcli.training.finetuning import fine_tune
from vlcli.training.key_values import Denoising, KeyValuesTraining, draws


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kv")
    save_diffusion(folder / "sd")
    save_encoder(folder / "encoder")
    write_pairs(folder / "pairs.jsonl")
    return folder


def run(place, out, *overrides, model="sd", by="encoder", validates=True, **options):
    reporter = Silent()
    table = load_pairs([str(place / "pairs.jsonl")])
    resolved = recipe(*overrides)
    made = KeyValuesTraining(
        resolved,
        open_diffusion(place / model),
        Conditioner(open_encoder(str(place / by)), resolved.diffusion.states),
        table,
        out,
        reporter,
        validation=table if validates else None,
        device="cpu",
        **options,
    )
    return made, reporter


@pytest.fixture(scope="module")
def finished(place):
    """A run of four steps: the task and what was said."""
    made, reporter = run(place, place / "run")
    reporter.before = []
    result = fine_tune(made, reporter.before.append)
    return made, reporter, result


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@torch.no_grad()
def test_the_loss_is_the_formulas(tmp_path, prediction):
    """Ho et al. 2020 Eq 14 on latents, and v = √ᾱ ε − √(1−ᾱ) x of Salimans & Ho 2022, pair by pair."""
    source = open_diffusion(save_diffusion(tmp_path / "sd", prediction=prediction))
    conditioner = Conditioner(encoder())
    denoising = Denoising(source, conditioner, empty=0.5, size=16)
    keys = [1, 22, 333, 4444]
    drawn = draws(keys, denoising.shape, denoising.times)
    pixels = torch.rand(4, 3, 16, 16) * 2 - 1
    texts = ["红色", "green", "azul azul", "أسود"]

    def model(noisy, times, states):
        return source.unet(noisy, times, encoder_hidden_states=states).sample

    found = denoising(model, pixels, *conditioner.encoder.tokenize(texts), drawn)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    left = (1 - betas).cumprod(0)
    assert 0 < sum(float(u) < 0.5 for u in drawn.empty) < 4  # both kinds of texts
    for i, text in enumerate(texts):
        posterior = source.vae.encode(pixels[i : i + 1]).latent_dist
        x = (posterior.mean + posterior.std * drawn.posterior[i]) * source.vae.config.scaling_factor
        share, noise = float(left[drawn.times[i]]), drawn.noise[i]
        noisy = share**0.5 * x + (1 - share) ** 0.5 * noise
        target = noise if prediction == "epsilon" else share**0.5 * noise - (1 - share) ** 0.5 * x
        states = conditioner.of_texts(["" if float(drawn.empty[i]) < 0.5 else text])
        said = source.unet(noisy, drawn.times[i], encoder_hidden_states=states).sample
        torch.testing.assert_close(found[i], ((said - target) ** 2).mean(), rtol=1e-4, atol=1e-5)


def test_draws_are_of_the_pairs_own_keys():
    together, alone = draws([7, 8], (4, 2, 2), 1000), draws([8], (4, 2, 2), 1000)
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one[1:], other)
    assert not torch.equal(together.noise[0], together.noise[1])
    many = draws(list(range(500)), (1,), 10)
    assert set(many.times.tolist()) == set(range(10))
    assert 0.4 < float(many.empty.mean()) < 0.6


def test_exactly_the_keys_and_values_change(place, finished):
    made, _, _ = finished
    before = load_file(place / "sd" / "unet" / "diffusion_pytorch_model.safetensors")
    after = made.model.unet.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(made.model.config.tensors)
    saved = load_file(place / "run" / "last" / "model.safetensors")
    assert saved.keys() == changed
    assert all(torch.equal(saved[name], after[name]) for name in saved)


def test_the_other_parts_do_not_change(place, finished):
    made, _, _ = finished
    fresh = open_diffusion(place / "sd")
    assert all(
        torch.equal(x, fresh.vae.state_dict()[n]) for n, x in made.denoising.source.vae.state_dict().items()
    )
    assert Conditioner(open_encoder(str(place / "encoder"))).fingerprint == made.model.config.encoder
    assert Conditioner(made.denoising.conditioner.encoder).fingerprint == made.model.config.encoder


def test_the_run_is_whole_and_says_what_it_is_of(place, finished):
    _, reporter, result = finished
    assert not check_run(place / "run", deep=True).findings
    config = json.loads((place / "run" / "last" / "config.json").read_text())
    assert config["kind"] == "diffusion-kv"
    source = open_diffusion(place / "sd")
    assert config["architecture"]["unet"] == config["lineage"]["unet"] == source.unet_hash
    assert config["lineage"]["encoder"] == config["architecture"]["encoder"]
    assert str(place) not in json.dumps(config)
    losses = [found["loss"] for _, found, _ in reporter.found]
    assert len(reporter.before) == 1
    assert result["best"] == -min(losses)


def test_validation_has_the_same_noise_each_time(finished):
    made, _, _ = finished
    found = made.validate().found
    assert found == made.validate().found
    assert len({found[name] for name in ("loss", "unconditional_loss", "shuffled_loss")}) == 3


def test_a_run_that_goes_on_is_the_run_that_was_not_stopped(place, finished, tmp_path):
    out = shutil.copytree(place / "run", tmp_path / "run", symlinks=True)
    shutil.rmtree(out / "checkpoints" / "step-00000004")
    made, reporter = run(place, out, resume=True)
    assert made.engine.step == 2
    made.run()
    whole, again = (
        (folder / "checkpoints" / "step-00000004" / "model.safetensors").read_bytes()
        for folder in (place / "run", out)
    )
    assert whole == again
    assert not reporter.warnings


def test_a_run_goes_on_with_its_own_parts_alone(place, finished):
    save_diffusion(place / "other", seed=1)
    save_encoder(place / "other-encoder", seed=1)
    with pytest.raises(UsageError, match="--resume: unet was"):
        run(place, place / "run", model="other", resume=True)
    with pytest.raises(UsageError, match="--resume: encoder was"):
        run(place, place / "run", by="other-encoder", resume=True)
    with pytest.raises(UsageError, match=r"--resume: diffusion\.empty was"):
        run(place, place / "run", "diffusion.empty=0.3", resume=True)


def test_what_was_trained_guides_the_unet_that_it_is_of(place, finished):
    source = open_diffusion(place / "sd")
    kv = load_key_values(place / "run", source)
    assert kv.checkpoint_hash
    assert kv.config.width == WIDTH


def test_the_loss_falls(place):
    made, reporter = run(
        place,
        place / "longer",
        "schedule.steps=60",
        "optimizer.lr=0.02",
        "train.save_every=0",
        "train.evaluate_every=0",
    )
    before = made.validate().value
    made.run()
    assert reporter.found[-1][1]["loss"] < -before - 0.02


def test_a_size_that_latents_do_not_divide(place):
    with pytest.raises(UsageError, match=r"--set diffusion\.size=16"):
        run(place, place / "odd", "diffusion.size=17")


def test_recipes_of_other_tasks_are_refused():
    with pytest.raises(UsageError, match=r"no table \[diffusion\]"):
        load_key_values_recipe("r2d2-retrieval")
    with pytest.raises(UsageError, match="is of --task diffusion-kv"):
        load_finetune_recipe("altclip-diffusion", {})
    assert load_key_values_recipe("altclip-diffusion").diffusion.empty == 0.1
