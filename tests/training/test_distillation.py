"""Teacher learning: the run's files, resumption, what is refused, and the way into the contrastive stage."""

import json
import os
import shutil
import subprocess

import numpy as np
import orjson
import polars as pl
import pytest
import torch
from distill_cases import TINY, WIDTH, distill_recipe, rows, teacher, write_rows
from safetensors.torch import load_file
from test_processes import accelerate_launch
from training_cases import Silent, pairs, recipe

import vlcli
from vlcli.errors import InputError, UsageError
from vlcli.models.checkpoint import load_text_encoder
from vlcli.models.quickcheck import check_checkpoint
from vlcli.recipes import load_distill_recipe, load_recipe
from vlcli.training.distillation import Distillation
from vlcli.training.pretraining import Pretraining

# of the contrastive stage, as small as training_cases has it
IMAGE_SIDE = (
    "model.dim=16",
    "model.image.init=random",
    "model.image.preprocess.size=64",
    "model.image_projection.hidden=16",
    "data.batch_size=16",
    "train.precision=fp32",
    "train.save_every=0",
    "schedule.steps=1",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a teacher, a table of sentences, and the cache of all runs."""
    folder = tmp_path_factory.mktemp("distill")
    teacher(folder)
    write_rows(folder / "parallel.jsonl", rows())
    return folder


def run(place, out, *overrides, data="parallel.jsonl", by="teacher", **options):
    reporter = Silent()
    made = Distillation(
        distill_recipe(place, *overrides),
        [str(place / data)],
        str(place / by),
        out,
        reporter,
        device="cpu",
        **options,
    )
    return made, reporter


def weights(out, step):
    return load_file(out / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def test_a_run_learns_and_leaves_a_text_encoder(place, tmp_path):
    out = tmp_path / "run"
    made, reporter = run(place, out, validation=[str(place / "parallel.jsonl")])
    # 40 en, 40 zh, 20 fr: 33 of each an epoch, 6 batches of 16
    assert (made.loader.pairs_per_epoch, made.total) == (99, 18)
    plan_of = made.plan()
    assert plan_of["pairs"] == 100
    assert plan_of["empty"] == {"fr": 20}
    assert plan_of["amounts"] == {"en": {"made": 33}, "zh": {"made": 33}, "fr": {"made": 33}}
    made.run()
    losses = [x["loss"] for x in map(orjson.loads, (out / "metrics.jsonl").open("rb")) if "loss" in x]
    assert len(losses) == 18
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    config = json.loads((out / "last" / "config.json").read_text())
    assert config["kind"] == "text"
    assert config["lineage"]["teacher"] == made.teacher.fingerprint
    assert check_checkpoint(out / "last", deep=True).status == "whole"
    assert "load_text_encoder" in (out / "last" / "README.md").read_text()
    step, found, _ = reporter.found[-1]
    assert step == 18
    assert set(found["languages"]) == {"en", "zh", "fr"}
    assert set(found["languages"]["zh"]["teacher"]) == {"from_en", "to_en"}
    assert "from_en" not in found["languages"]["en"]
    # the teacher's projection goes along and has not moved
    student, clip = load_text_encoder(out), vlcli.load(place / "teacher")
    assert torch.equal(student.text_projection.weight, clip.text_projection.weight)
    assert student(*student.tokenize(["红狐"])).shape == (1, WIDTH)
    with pytest.raises(
        UsageError, match="is a checkpoint of kind 'text'; this command wants 'dual' or 'r2d2'"
    ):
        vlcli.load(out)
    first = next(made.loader.batches(0, 1))
    assert first.pair_ids[:2] == made.table.places(first.rows[:2].tolist())
    assert (len(first.pair_ids), first.pair_ids[3]) == (16, list(first.pair_ids)[3])


def test_the_teachers_vectors_are_its_pooled_states_and_computed_once(place, tmp_path):
    made, _ = run(place, tmp_path / "run")
    clip = vlcli.load(place / "teacher")
    ids, mask = clip.tokenize(["a red fox", "a blue dog"])
    with torch.no_grad():
        hidden = clip.text(ids, mask)
        wanted = hidden[torch.arange(2), mask.sum(1) - 1]  # the last token, row by row
    found = made.vectors.of(["a red fox", "a blue dog"])
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-6)
    batch = next(made.loader.batches(0, 1))
    sentences = made.table.texts(made.table.teachers[batch.rows].tolist())
    np.testing.assert_allclose(batch.target.numpy(), made.vectors.of(sentences), atol=1e-6)

    def again(texts):
        raise AssertionError(f"asked for {texts}")

    made.teacher.encode = again
    made._teach()
    projected, _ = run(place, tmp_path / "other", "distill.target=projected", "model.text.head.width=16")
    assert projected.vectors.store.folder != made.vectors.store.folder
    with torch.no_grad():
        np.testing.assert_allclose(
            projected.vectors.of(["a red fox"]), clip.text_projection(wanted[:1]).numpy(), atol=1e-6
        )
    assert projected.model.text_projection is None


def test_resumed_equals_uninterrupted_bit_for_bit(place, tmp_path):
    whole, part = tmp_path / "whole", tmp_path / "part"
    # transformers' own dropout, and a step in the middle of an epoch
    options = ["model.text.dropout=0.3"]
    run(place, whole, *options)[0].run()
    shutil.copytree(whole, part, symlinks=True)
    for step in (12, 15, 18):
        shutil.rmtree(part / "checkpoints" / f"step-{step:08d}")
    file = part / "checkpoints" / "step-00000009" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    resumed, reporter = run(place, part, *options, resume=True)
    assert resumed.engine.step == 6
    assert "step-00000009 is passed over" in reporter.warnings[0]
    resumed.run()
    for step in (9, 18):
        a, b = weights(whole, step), weights(part, step)
        assert all(torch.equal(a[name], b[name]) for name in a)
    with pytest.raises(UsageError, match=r"--resume: distill\.target was pooled, is projected"):
        run(place, part, *options, "distill.target=projected", resume=True)
    write_rows(place / "fewer.jsonl", rows()[:30])
    with pytest.raises(UsageError, match="--resume: split_hash was"):
        run(place, part, *options, data="fewer.jsonl", resume=True)


def test_two_processes_learn_what_one_does(place, tmp_path):
    told = ("schedule.steps=4", "train.save_every=0", "model.text.encoder.hidden_dropout_prob=0.0")
    settings = (*TINY, *told, "model.text.encoder.attention_probs_dropout_prob=0.0")
    one, _ = run(place, tmp_path / "one", *settings)
    one.run()
    command = [
        "-m",
        "vlcli",
        "distill",
        "--recipe",
        "emoji-altclip-teacher",
        "--device",
        "cpu",
        "--student",
        "random",
    ]
    command += ["--teacher", place / "teacher", "--data", place / "parallel.jsonl", "-o", tmp_path / "two"]
    process = subprocess.run(
        [*accelerate_launch(2), *command, *(f"--set={x}" for x in settings)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "VLCLI_CACHE": str(tmp_path / "cache")},
        stderr=subprocess.PIPE,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr
    first, second = (
        [json.loads(line) for line in (tmp_path / out / "metrics.jsonl").read_text().splitlines()]
        for out in ("one", "two")
    )
    assert len(first) == len(second) == 4
    for name in ("loss", "grad_norm", "lr"):
        assert [x[name] for x in second] == pytest.approx([x[name] for x in first], rel=1e-4)


def test_a_teacher_whose_width_does_not_fit(place, tmp_path):
    with pytest.raises(UsageError) as refused:
        run(place, tmp_path / "run", "model.text.head.width=48")
    assert str(refused.value) == (
        f"the vectors of the teacher {place / 'teacher'} have 32 dimensions, the student's head gives 48;"
        " --set model.text.head.width=32"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"en": "a fox", "zh": " "}, "the zh side is empty"),
        ({"en": "", "zh": "狐", "fr": "le renard"}, "no English sentence: it is what the teacher reads"),
        ({"zh": "狐"}, "no English sentence: it is what the teacher reads"),
        ({"en": "a fox", "text": "狐", "lang": "xx"}, "the language 'xx' is not one of en, zh, fr"),
        ({"en": "a fox", "text": "", "lang": "zh"}, "the zh side is empty"),
        ({"en": "a fox", "zh": 3}, "zh is int, not one sentence"),
    ],
)
def test_bad_rows_are_named(place, tmp_path, row, cause):
    file = write_rows(tmp_path / "bad.jsonl", [*rows()[:5], row])
    with pytest.raises(InputError) as refused:
        run(place, tmp_path / "run", data=file)
    assert str(refused.value) == f"{file}:6: {cause}"
    assert not (tmp_path / "run").exists()


def test_what_is_refused(place, tmp_path):
    with pytest.raises(UsageError, match="no row has a sentence in 'ko'"):
        run(place, tmp_path / "run", 'distill.languages=["en", "ko"]')
    with pytest.raises(UsageError, match="no row is of source 'opus'; there are made"):
        run(place, tmp_path / "run", "distill.sources={opus = 1}")
    with pytest.raises(UsageError, match="all of a student learns"):
        distill_recipe(place, "model.text.locked=true")
    with pytest.raises(UsageError, match="fewer than one batch of 4096"):
        run(place, tmp_path / "run", "data.batch_size=4096")
    (tmp_path / "token").mkdir()
    teacher(tmp_path / "token", "model.similarity=tokenwise")
    with pytest.raises(UsageError, match="its similarity is tokenwise"):
        run(place, tmp_path / "run", by=tmp_path / "token" / "teacher")
    assert not (tmp_path / "run").exists()


def test_vectors_that_are_supplied(place, tmp_path):
    given = [{"en": row["en"], "vector": [float(i)] * 7} for i, row in enumerate(rows())]
    (tmp_path / "vectors.jsonl").write_bytes(b"".join(orjson.dumps(x) + b"\n" for x in given))
    made, _ = run(place, tmp_path / "run", "model.text.head.width=7", by=tmp_path / "vectors.jsonl")
    assert made.vectors.of(["a red bear"]).tolist() == [[1.0] * 7]
    made.run()
    (tmp_path / "few.jsonl").write_bytes(b"".join(orjson.dumps(x) + b"\n" for x in given[:3]))
    with pytest.raises(InputError, match=r"few\.jsonl: it has no vector of the sentence 'a red cat'"):
        run(place, tmp_path / "other", "model.text.head.width=7", by=tmp_path / "few.jsonl")
    (tmp_path / "odd.jsonl").write_bytes(orjson.dumps(given[0]) + b'\n{"en": "x", "vector": [1.0]}\n')
    with pytest.raises(InputError, match=r"odd\.jsonl:2: its vector has 1 numbers, those before it 7"):
        run(place, tmp_path / "other", "model.text.head.width=7", by=tmp_path / "odd.jsonl")


def test_vectors_in_a_directory_of_embeddings(place, tmp_path):
    vectors = np.arange(7, dtype=np.float16) + np.arange(len(rows()), dtype=np.float16)[:, None]
    folder = tmp_path / "vectors"
    for name in ("text_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for part, mine in enumerate((slice(0, 3), slice(3, None))):
        np.save(folder / "text_emb" / f"text_emb_{part}.npy", vectors[mine])
        table = pl.DataFrame({"caption": [row["en"] for row in rows()[mine]]})
        table.write_parquet(folder / "metadata" / f"metadata_{part}.parquet")
    made, _ = run(place, tmp_path / "run", "model.text.head.width=7", by=folder)
    last = len(rows()) - 1
    assert made.vectors.of([rows()[1]["en"], rows()[last]["en"]]).tolist() == vectors[[1, last]].tolist()
    made.run()
    pl.DataFrame({"caption": ["a red bear", None, "x"]}).write_parquet(
        folder / "metadata" / "metadata_0.parquet"
    )
    with pytest.raises(InputError, match="vectors#2: no caption"):
        run(place, tmp_path / "other", "model.text.head.width=7", by=folder)


def test_the_student_starts_the_contrastive_stage(place, tmp_path):
    """`pretrain --init text=RUN`: tower, head and projection are the student's."""
    out = tmp_path / "student"
    run(place, out, "schedule.steps=2")[0].run()
    student = load_text_encoder(out)
    settings = [
        *(x for x in TINY if x.startswith("model.")),
        *IMAGE_SIDE,
        "model.text.locked=false",
        "model.text_projection.kind=linear",
        "model.text_projection.init=tower",
    ]
    contrastive = load_recipe("emoji-altclip-head", [*settings, f"data.cache={place / 'cache'}"])
    started = Pretraining(
        contrastive, pairs(32), tmp_path / "dual", Silent(), init_text=str(out), device="cpu"
    )
    state = started.model.state_dict()
    for name, tensor in student.state_dict().items():
        assert torch.equal(state[name], tensor), name
    assert started.run()["steps"] == 1


def test_an_mlp_comes_along_from_a_checkpoint_of_ours(place, tmp_path):
    """The contrastive stage goes on with the head that the first one has trained, and leaves it alone."""
    student = tmp_path / "student"
    run(place, student, "schedule.steps=1")[0].run()
    settings = [
        *(x for x in TINY if x.startswith("model.")),
        *IMAGE_SIDE,
        f"data.cache={place / 'cache'}",
        f"model.dim={WIDTH}",
    ]
    head = load_recipe("emoji-altclip-head", settings)
    made = Pretraining(head, pairs(32), tmp_path / "head", Silent(), init_text=str(student), device="cpu")
    made.run()
    both = {"init_image": str(tmp_path / "head"), "init_text": str(tmp_path / "head")}
    recipe_of_both = load_recipe("emoji-altclip", settings)
    second = Pretraining(recipe_of_both, pairs(32), tmp_path / "dual", Silent(), **both, device="cpu")
    second.run()
    before, after = made.model.state_dict(), second.model.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"text", "text_head", "log_scale"}


def test_recipe_of_another_command(tmp_path):
    with pytest.raises(UsageError, match="emoji-altclip-teacher is of teacher learning; vlcli distill"):
        load_recipe("emoji-altclip-teacher")
    with pytest.raises(UsageError, match=r"emoji-altclip has no table \[distill\]; vlcli pretrain"):
        load_distill_recipe("emoji-altclip")
    assert recipe(tmp_path).name
