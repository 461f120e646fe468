"""Every example of every command runs as it is printed, in a folder where the files that it names exist.

Those that train a ViT-L/14, and sweeps, run with --dry-run, and without `accelerate launch -m` before them: it alone
imports torch for seconds, and tests/training/test_processes.py is about it. Training is otherwise shortened from
outside, by the environment; a line that has settings of its own, which go before the environment's, gets them appended.
"""

import base64
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import polars as pl
import pytest
import torch
from diffusion_cases import save_diffusion
from PIL import Image

from vlcli import manual
from vlcli.cli import COMMANDS, app
from vlcli.models.captioner import Captioner
from vlcli.models.checkpoint import checkpoint_hash, load, save_checkpoint
from vlcli.models.classifier import Classifier
from vlcli.models.conditioner import Conditioner
from vlcli.models.config import (
    CaptionerConfig,
    ClassifierConfig,
    DualEncoderConfig,
    ImageTowerConfig,
    TextEncoderConfig,
    TextTowerConfig,
)
from vlcli.models.decoder import Decoder
from vlcli.models.diffusion_config import DecoderConfig, PriorConfig
from vlcli.models.diffusion_directory import open_diffusion
from vlcli.models.dual import DualEncoder
from vlcli.models.key_values import new_key_values
from vlcli.models.prior import Prior
from vlcli.models.text_encoder import TextEncoder
from vlcli.text.languages import NINE

ROOT = Path(__file__).parents[1]
EXAMPLES = [(name, line) for name in COMMANDS for line in import_module(f"vlcli.commands.{name}").EXAMPLES]
EXAMPLES += [("vlcli", line) for line in manual.ROOT_EXAMPLES]
DISTINCT = list(dict.fromkeys(line for _, line in EXAMPLES))
LAUNCHER = "accelerate launch -m "
NAMES = ("狐狸", "企鹅", "葡萄酒", "邮局", "向日葵", "自行车", "苹果", "飞机")
SHORT = {  # of the training that is run: two steps of four pairs
    "VLCLI_PRETRAIN_SET": "data.batch_size=4 data.workers=0 schedule.steps=2 train.precision=fp32",
    "VLCLI_PRETRAIN_DEVICE": "cpu",
    "VLCLI_FINETUNE_SET": "data.batch_size=4 data.workers=0 schedule.steps=2 train.precision=fp32",
    "VLCLI_FINETUNE_DEVICE": "cpu",
    "VLCLI_GENERATE_STEPS": "2",
    "VLCLI_GENERATE_DEVICE": "cpu",
    "VLCLI_DISTILL_SET": "data.batch_size=4 schedule.steps=2 train.precision=fp32"
    " model.text.tokenizer=wordpiece-zh model.text.encoder.vocab_size=21128",
    "OMP_NUM_THREADS": "1",
}


def picture(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (240, 220), (number * 37 % 256, number * 91 % 256, number * 53 % 256)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def jsonl(file: Path, rows: list[dict]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def run_vlcli(*arguments: str) -> None:
    assert not app(list(arguments), prog_name="vlcli", standalone_mode=False), arguments


def tiny_clip(here: Path) -> None:
    """A CLIP that learnt nothing, as a checkpoint and as OpenAI's file."""
    torch.manual_seed(0)
    sizes = {"patch_size": 16, "embed_dim": 64, "depth": 1, "num_heads": 1}
    image = ImageTowerConfig(name="vit_base_patch32_clip_quickgelu_224", arguments=sizes, locked=False)
    text = TextTowerConfig(
        width=64, layers=1, heads=1, context=77, vocabulary=49408, pooling="eot", tokenizer="clip-bpe"
    )
    model = DualEncoder(DualEncoderConfig(dim=16, similarity="global", image=image, text=text))
    save_checkpoint(model, here / "clip", recipe={}, lineage={})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        run_vlcli("convert", "clip/", "--to", "openai-clip", "-q", "-o", "ViT-B-32.pt")


def tiny_r2d2(here: Path) -> None:
    """An R2D2 that learnt nothing, with the three layers that figures want, and a captioner of the same towers."""
    torch.manual_seed(0)
    encoder = {"model_type": "bert", "vocab_size": 21128, "hidden_size": 16, "num_hidden_layers": 1}
    encoder |= {"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 40}
    text = {"kind": "transformers", "encoder": encoder, "pooling": "cls"}
    ranking = {"layers": 3, "heads": 2, "intermediate": 16}
    table = {
        "dim": 16,
        "similarity": "global",
        "image": {"name": "test_vit"},
        "text": text,
        "ranking": ranking,
    }
    save_checkpoint(
        DualEncoder(DualEncoderConfig.model_validate(table)), here / "runs" / "r2d2", recipe={}, lineage={}
    )
    parts = {"image": table["image"], "text": text, "cross": ranking}
    captioner = Captioner(CaptionerConfig.model_validate(parts))
    save_checkpoint(captioner, here / "runs" / "captioner", recipe={}, lineage={})


def tiny_painter(here: Path) -> None:
    """A dual encoder, a prior and a decoder that learnt nothing, of one training."""
    torch.manual_seed(0)
    text = TextTowerConfig(width=16, layers=1, heads=2)
    clip = DualEncoderConfig(dim=16, similarity="global", image=ImageTowerConfig(name="test_vit"), text=text)
    save_checkpoint(DualEncoder(clip), here / "runs" / "clip", recipe={}, lineage={})
    of = {"encoder": checkpoint_hash(here / "runs" / "clip"), "dim": 16}
    prior = PriorConfig(layers=1, heads=2, head_width=8, text_width=16, context=32, **of)
    save_checkpoint(Prior(prior), here / "runs" / "prior", recipe={}, lineage={})
    shape = {"size": 16, "channels": (16, 16), "attention": (8,), "blocks": 1, "head_width": 8, "groups": 8}
    save_checkpoint(Decoder(DecoderConfig(**shape, **of)), here / "runs" / "decoder", recipe={}, lineage={})


def tiny_diffusion(here: Path) -> None:
    """A diffusion model that learnt nothing, and keys and values of it for the encoder of runs/altclip-m9."""
    model = save_diffusion(here / "stable-diffusion-v1-4", 16)
    conditioner = Conditioner(load(here / "runs" / "altclip-m9"))
    save_checkpoint(
        new_key_values(open_diffusion(model), conditioner), here / "runs" / "kv", recipe={}, lineage={}
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen pictures of eight things under all the names that examples use, and a model that learnt nothing."""
    here = tmp_path_factory.mktemp("examples")
    (here / "photos").mkdir()
    rows = []
    for i in range(16):
        (here / "photos" / f"{i}.png").write_bytes(picture(i))
        name = NAMES[i % 8]
        rows.append(
            {
                "id": "fxemoji/1f98a" if i == 0 else f"photo/{i}",
                "image": f"photos/{i}.png",
                "text": f"草地上有一只{name}",
                "name": name,
                "group_zh": "动物" if i % 8 < 2 else "物品",
                **{f"name_{lang}": f"{lang} {name}" for lang in NINE},
                "label": i % 8,
                "split": "val" if i % 4 == 0 else "train",
            }
        )
    (here / "fox.png").write_bytes(picture(0))
    (here / "ViT-L-14.pt").touch()
    tiny_clip(here)
    (here / "mt").write_text("#!/bin/sh\nexec cat\n")
    (here / "mt").chmod(0o755)
    for name in ("raw.jsonl", "val.jsonl", "imagenet.jsonl", "flickr30k-cn.jsonl"):
        jsonl(here / name, rows)
    for split in ("train", "test"):  # the same pictures, but other rows
        jsonl(here / f"{split}.jsonl", [{**row, "text": f"{split} {row['text']}"} for row in rows])
    for lang in NINE:
        jsonl(here / f"xtd.{lang}.jsonl", [{**row, "text": row[f"name_{lang}"]} for row in rows])
    jsonl(here / "demo" / "val.jsonl", [{**row, "image": f"../{row['image']}"} for row in rows])
    jsonl(here / "pairs.jsonl", [{"image": f"{i}.png", "caption": r["text"]} for i, r in enumerate(rows)])
    table = pl.DataFrame(
        {
            "id": [row["id"] for row in rows],
            "image": [{"bytes": picture(i), "path": None} for i in range(16)],
            "caption": [row["text"] for row in rows],
            "split": [row["split"] for row in rows],
        }
    )
    for name in ("raw.parquet", "pairs.parquet"):
        table.write_parquet(here / name)
    for lang in NINE:
        (here / f"labels.{lang}.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    (here / "groups.txt").write_text("动物\t动物\n物品\t物品\n", encoding="utf-8")
    four = [row["id"] for row in rows[:4]]
    jsonl(here / "mosaics.jsonl", [{"images": four, "target": t, "text": NAMES[t]} for t in range(4)])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for folder in ("shards", "demo/shards"):
            run_vlcli("shard", "-q", "raw.jsonl", "--per-shard", "2", "-j", "1", "-o", folder)
    parallel = [{"en": f"thing {i}", "zh": name} for i, name in enumerate(NAMES)]
    for row in parallel:
        row |= dict.fromkeys(("es", "fr", "ru", "ar", "ja", "ko", "it"), f"so {row['en']}")
    for name in ("parallel.parquet", "opus.parquet"):
        pl.DataFrame(parallel).write_parquet(here / name)
    jsonl(here / "laion.jsonl", [{**row, "en": f"{row['en']} too"} for row in parallel])
    student = TextEncoder(TextEncoderConfig(text=TextTowerConfig(width=16, layers=1, heads=2)))
    save_checkpoint(student, here / "runs" / "t", recipe={}, lineage={})
    tower = ImageTowerConfig(name="test_vit")
    classifier = Classifier(ClassifierConfig(image=tower, labels=("动物", "物品")))
    save_checkpoint(classifier, here / "runs" / "flowers", recipe={}, lineage={})
    (here / "my.toml").write_text('extends = "emoji-lit-filip"\n', encoding="utf-8")
    step = here / "runs" / "lit-filip" / "checkpoints" / "step-00000001"
    torch.manual_seed(0)
    image = ImageTowerConfig(name="test_vit")
    text = TextTowerConfig(width=16, layers=1, heads=2)
    model = DualEncoder(DualEncoderConfig(dim=16, similarity="tokenwise", image=image, text=text)).eval()
    save_checkpoint(model, step, recipe={}, lineage={})
    jsonl(here / "runs" / "lit-filip" / "metrics.jsonl", [{"step": 1, "loss": 3.0}])
    for link in ("last", "best"):
        (here / "runs" / "lit-filip" / link).symlink_to("checkpoints/step-00000001")
    for name in ("altclip-m9", "lit-clip"):
        (here / "runs" / name).symlink_to("lit-filip")
    tiny_r2d2(here)
    tiny_painter(here)
    tiny_diffusion(here)
    public_sets(here)
    class_files(here, rows)
    generated(here, rows)
    for name in ("icm.train.jsonl", "icm.val.jsonl"):
        jsonl(here / name, [{**row, "label": i % 2} for i, row in enumerate(rows)])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        run_vlcli(
            "visualize", "runs/lit-filip", "--image", "fox.png", "--text", "狐狸", "-o", "fox.figure.json"
        )
        run_vlcli("embed", "-q", "runs/lit-filip", "val.jsonl", "-o", "embeddings")
        for place in ("results.jsonl", "runs/lit-filip/results.jsonl"):
            run_vlcli(
                "retrieve", "runs/lit-filip", "--data", "val.jsonl", "--cache", "off", "--results", place
            )
    return here


def generated(here: Path, rows: list[dict]) -> None:
    """Captions of the rows' pictures, as pairs and in COCO's files, and pictures of their captions."""
    jsonl(here / "captions.jsonl", [{**row, "caption_generated": f"一只{row['name']}"} for row in rows])
    said = [{"image_id": i, "caption": f"一只{row['name']}"} for i, row in enumerate(rows)]
    (here / "results.json").write_text(json.dumps(said))
    written = [{"id": i, "image_id": i, "caption": row["text"]} for i, row in enumerate(rows)]
    (here / "annotations.json").write_text(json.dumps({"images": [], "annotations": written}))
    pictures = [{**row, "image": f"../photos/{(i + 1) % 16}.png"} for i, row in enumerate(rows)]
    jsonl(here / "pictures" / "pairs.jsonl", pictures)


def class_files(here: Path, rows: list[dict]) -> None:
    """Labelled rows to learn from and to be tested on, pairs of words, and captions of nearly the same words."""
    for name, some in (("train", rows[:8]), ("test", rows[8:]), ("aircraft", rows)):
        jsonl(here / f"{name}.jsonl", some)
    (here / "aircraft.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    of_elevater = dict.fromkeys(("num_trainable_params", "num_params", "num_visual_params", "n_shot"), 0)
    of_elevater |= {"model_name": "a", "num_backbone_params": 0, "rnd_seeds": [0], "predictions": [[[1.0]]]}
    for name in ("mnist", "pets"):
        (here / f"{name}.json").write_text(json.dumps(of_elevater | {"dataset_name": name}))
    words = [f"{NAMES[i]}\t{NAMES[i + 1]}\tN\t{i}.5\t1\t1\t{1 + i % 4}\t0\t{i % 2}\t1" for i in range(7)]
    head = "word1\tword2\tPOS\tSimLex999\tconc(w1)\tconc(w2)\tconcQ\tAssoc(USF)\tSimAssoc333\tSD(SimLex)"
    (here / "SimLex-999.txt").write_text("\n".join([head, *words]) + "\n", encoding="utf-8")
    (here / "sugarcrepe").mkdir()
    (here / "val2017").mkdir()
    cases = {}
    for k in range(4):
        (here / "val2017" / f"{k:012}.jpg").write_bytes(picture(k))
        cases[str(k)] = {
            "filename": f"{k:012}.jpg",
            "caption": "a dog on a cat",
            "negative_caption": "a cat on a dog",
        }
    (here / "sugarcrepe" / "swap_obj.json").write_text(json.dumps(cases))


def public_sets(here: Path) -> None:
    """Public data sets of twelve pictures, in the files that their authors publish."""
    names = {folder: [f"{folder[0]}{k}" for k in range(12)] for folder in ("flickr30k-images", "XTD10")}
    for folder, stems in names.items():
        (here / folder).mkdir()
        for k, stem in enumerate(stems):
            (here / folder / f"{stem}.jpg").write_bytes(picture(k))
    for split in ("train", "val", "test"):
        lines = [
            f"{stem}#0\t草地上有一只{NAMES[k % 8]}{k}\n" for k, stem in enumerate(names["flickr30k-images"])
        ]
        (here / "CNA" / split).mkdir(parents=True)
        (here / "CNA" / split / f"flickr30k_cna_{split}.txt").write_text("".join(lines), encoding="utf-8")
    (here / "XTD10" / "test_image_names.txt").write_text("\n".join(f"{s}.jpg" for s in names["XTD10"]))
    for lang in ("en", "zh", "jp"):
        captions = "\n".join(f"{lang} {NAMES[k % 8]} {k}" for k in range(12))
        (here / "XTD10" / f"test_1kcaptions_{lang}.txt").write_text(captions, encoding="utf-8")
    (here / "MUGE").mkdir()
    for split in ("valid", "test"):
        table = [f"{k}\t{base64.urlsafe_b64encode(picture(k)).decode()}\n" for k in range(12)]
        (here / "MUGE" / f"MR_{split}_imgs.tsv").write_text("".join(table))
        known = [{"item_ids": [k, k + 1]} if split == "valid" else {} for k in range(8)]
        queries = [{"query_id": k, "query_text": NAMES[k], **ids} for k, ids in enumerate(known)]
        jsonl(here / "MUGE" / f"MR_{split}_queries.jsonl", queries)
    stems = [f"COCO_val2014_{k:012}" for k in range(12)]
    (here / "val2014").mkdir()
    for k, stem in enumerate(stems):
        (here / "val2014" / f"{stem}.jpg").write_bytes(picture(k))
    said = [
        {
            "filename": f"{s}.jpg",
            "split": "test",
            "sentences": [{"raw": f"a {k}", "sentid": k}, {"raw": f"b {k}", "sentid": k + 50}],
        }
        for k, s in enumerate(stems)
    ]
    (here / "cxc").mkdir()
    (here / "cxc" / "dataset_coco.json").write_text(json.dumps({"images": said}))
    texts, images = [f"COCO_val2014:sentid:{k}" for k in range(12)], [f"{stem}.jpg" for stem in stems]
    for kind, columns, left, right in (
        ("sts", "caption1,caption2", texts, texts),
        ("sis", "image1,image2", images, images),
        ("sits", "caption,image", texts, images),
    ):
        rated = [f"{left[k]},{right[(k + s) % 12]},{(k * s) % 6},x" for k in range(12) for s in (1, 2, 3)]
        content = "\n".join([f"{columns},agg_score,sampling_method", *rated])
        (here / "cxc" / f"{kind}_test.csv").write_text(content + "\n")
    rows = [{"text": NAMES[k % 8], "image_path": f"x/f{k % 12}.jpg", "label": k % 2} for k in range(24)]
    jsonl(here / "ICM" / "val" / "long_itm_val.json", rows)
    shutil.copytree(here / "flickr30k-images", here / "IQR_IQM_ICR_ICM_images")


def named_outputs(line: str) -> list[str]:
    words = shlex.split(line.replace(">", " > "))
    return [
        words[i + 1]
        for i, word in enumerate(words[:-1])
        if word in ("-o", ">", "--report", "--rejects", "--hold-out-to", "--predictions")
    ]


def shortened(line: str) -> str:
    """What the environment cannot say to a line with its own `--set`."""
    settings = SHORT.get(f"VLCLI_{line.split()[1].upper()}_SET", "")
    return "".join(f" --set {setting}" for setting in settings.split()) if " --set " in line else ""


@pytest.mark.parametrize("line", DISTINCT)
def test_it_runs_as_printed(line, prepared, tmp_path, monkeypatch, capsys):
    here = tmp_path / "here"
    shutil.copytree(prepared, here, symlinks=True)
    monkeypatch.chdir(here)
    for name, value in {**SHORT, "VLCLI_CACHE": str(tmp_path / "cache")}.items():
        if name != "VLCLI_GENERATE_STEPS" or "--caption" not in line:  # which has none
            monkeypatch.setenv(name, value)
    for output in named_outputs(line):  # what stands there for other examples is in the way of this one
        place = Path(output)
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
    dry = "ViT-L-14.pt" in line
    assert dry or not line.startswith(LAUNCHER)
    printed = f"{line.removeprefix(LAUNCHER)} --dry-run" if dry else line + shortened(line)
    if line.startswith("vlcli sweep"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
        run_vlcli(*shlex.split(os.path.expandvars(line).replace("sweep", "sweep --dry-run", 1))[1:])
        plan = capsys.readouterr().out.splitlines()
        assert plan
        run_vlcli(*shlex.split(plan[0])[1:], "--dry-run")
        return
    if any(c in line for c in "|<>"):
        program = tmp_path / "vlcli"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m vlcli "$@"\n')
        program.chmod(0o755)
        path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", printed],
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    else:
        program_name, *arguments = shlex.split(printed)
        assert program_name == "vlcli"
        run_vlcli(*arguments)
    for output in () if dry else named_outputs(line):
        assert Path(output).exists()


def test_every_command_has_examples_that_name_it():
    for name in COMMANDS:
        own = [line for command, line in EXAMPLES if command == name]
        assert own
        assert all(f"vlcli {name}" in line for line in own)
