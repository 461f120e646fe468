"""The noise process against its formulas, written out number by number, and against diffusers' schedulers."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from vlcli.generation.noise_process import NoiseProcess, guided
from vlcli.models.diffusion_config import NoiseConfig

NAMES = {"cosine": "squaredcos_cap_v2", "linear": "linear"}
PREDICTS = {"sample": "sample", "epsilon": "epsilon", "velocity": "v_prediction"}


def literal_kept(levels, schedule):
    kept, product = [], 1.0
    for t in range(levels):
        if schedule == "linear":
            beta = 1e-4 + (0.02 - 1e-4) * t / (levels - 1)
        else:
            here, there = (math.cos((s / levels + 0.008) / 1.008 * math.pi / 2) ** 2 for s in (t, t + 1))
            beta = min(1 - there / here, 0.999)
        product *= 1 - beta
        kept.append(product)
    return kept


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_what_a_level_keeps(schedule):
    process = NoiseProcess(NoiseConfig(schedule=schedule))
    assert torch.allclose(process.kept, torch.tensor(literal_kept(1000, schedule)), rtol=1e-5, atol=1e-12)
    theirs = DDPMScheduler(beta_schedule=NAMES[schedule]).alphas_cumprod
    assert torch.allclose(process.kept, theirs, rtol=1e-3, atol=1e-7)  # theirs is multiplied in float32
    assert (process.kept.diff() < 0).all()


@pytest.mark.parametrize("predicts", ["sample", "epsilon", "velocity"])
def test_adding_noise_and_what_is_to_be_said_of_it(predicts):
    process = NoiseProcess(NoiseConfig(predicts=predicts))
    torch.manual_seed(0)
    sample, noise, level = torch.randn(3, 2, 2), torch.randn(3, 2, 2), torch.tensor([0, 500, 900])
    noisy, target = process.add(sample, noise, level), process.target(sample, noise, level)
    for row in range(3):
        kept = literal_kept(1000, "cosine")[int(level[row])]
        for place in ((0, 0), (1, 1)):
            x, e = sample[row][place].item(), noise[row][place].item()
            assert noisy[row][place].item() == pytest.approx(
                math.sqrt(kept) * x + math.sqrt(1 - kept) * e, abs=1e-5
            )
            said = {"sample": x, "epsilon": e, "velocity": math.sqrt(kept) * e - math.sqrt(1 - kept) * x}[
                predicts
            ]
            assert target[row][place].item() == pytest.approx(said, abs=1e-5)
    theirs = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type=PREDICTS[predicts])
    assert torch.allclose(noisy, theirs.add_noise(sample, noise, level), atol=1e-4)
    # what a perfect answer is read as
    assert torch.allclose(process.sample_of(target, noisy, level), sample, atol=1e-3)


@pytest.mark.parametrize("predicts", ["sample", "epsilon", "velocity"])
@pytest.mark.parametrize("bound", [None, 1.0])
def test_the_way_back_is_diffusers(predicts, bound):
    """A model that answers by some function: ours and theirs walk the same way, at steps that divide the levels."""
    process = NoiseProcess(NoiseConfig(predicts=predicts))
    torch.manual_seed(0)
    noise = torch.randn(2, 3, 4, 4)

    def model(noisy, level):
        return torch.tanh(noisy * (1 + level.reshape(-1, 1, 1, 1) / 1000))

    ours = process.denoise(model, noise, steps=20, bound=bound)
    theirs = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type=PREDICTS[predicts],
        clip_sample=bound is not None,
        timestep_spacing="trailing",
    )
    theirs.set_timesteps(20)
    assert theirs.timesteps.tolist() == process.way_back(20)
    x = noise
    for t in theirs.timesteps:
        said = model(x, torch.full((2,), int(t)))
        x = theirs.step(said, t, x, use_clipped_model_output=True).prev_sample
    assert torch.allclose(ours, x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("levels", "steps"), [(1000, 1), (1000, 64), (1000, 1000), (7, 3), (2, 2)])
def test_a_way_begins_in_noise_and_comes_down(levels, steps):
    way = NoiseProcess(NoiseConfig(levels=levels)).way_back(steps)
    assert (len(way), way[0]) == (steps, levels - 1)
    assert sorted(set(way), reverse=True) == way
    assert way[-1] == -(-levels // steps) - 1


def test_more_steps_than_levels():
    with pytest.raises(ValueError, match="8 steps: there are 7"):
        NoiseProcess(NoiseConfig(levels=7)).way_back(8)


def test_a_model_that_knows_the_sample_gives_it_whatever_the_noise():
    process, wanted = NoiseProcess(NoiseConfig(predicts="sample")), torch.randn(2, 5)
    for seed in (0, 1):
        torch.manual_seed(seed)
        found = process.denoise(lambda noisy, level: wanted, torch.randn(2, 5), steps=7)
        assert torch.equal(found, wanted)


def test_guidance():
    with_it, without = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])
    assert guided(with_it, without, 0.0).tolist() == [0.0, 4.0]
    assert guided(with_it, without, 1.0).tolist() == [1.0, 2.0]
    assert guided(with_it, without, 3.0).tolist() == [3.0, -2.0]
