"""Embeddings of pairs: the numbers of the model, clip-retrieval's layout, and what a stopped run leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from tiny_models import COLOURS, square, tiny

from vlcli.curation.embeddings import Embeddings
from vlcli.errors import InputError, UsageError
from vlcli.evaluation.embed_pairs import Options, embed_pairs
from vlcli.evaluation.vectors import ModelVectors, open_tower
from vlcli.images.decode import decode
from vlcli.images.resolve import ImageReader
from vlcli.models.checkpoint import save_checkpoint
from vlcli.records.bad import BadRows
from vlcli.shards.stream import stream_rows

NAMES = list(COLOURS)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = []
    for i in range(14):
        name = NAMES[i % 6]
        (tmp_path / f"{i}.png").write_bytes(square(COLOURS[name], 30 + i))
        lines.append({"id": f"square/{i}", "image": f"{i}.png", "text": [f"{name}{i}", "又"]})
    write("rows.jsonl", lines)
    return tmp_path


def write(name, rows):
    with open(name, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def embed(encoder, output, *, inputs=("rows.jsonl",), max_bad="0", head=None, batch=4, **options):
    force = options.pop("force", False)
    bad = BadRows(max_bad)
    with ImageReader() as reader:
        return embed_pairs(
            encoder,
            lambda skip: stream_rows(inputs, reader, bad=bad, skip=skip, head=head),
            output,
            Options(**options),
            bad,
            batch_size=batch,
            force=force,
        )


def tree(path):
    return {
        str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file() and f.name != "lock"
    }


@pytest.mark.parametrize("kind", ["global", "tokenwise", "reduced"])
def test_the_vectors_are_the_models(folder, kind):
    model = tiny(kind)
    said = embed(ModelVectors(model), folder / "out", per_file=5, dtype="float32")
    assert (said["rows"], said["vectors"], said["parts"], said["dim"]) == (14, 14, 3, 16)
    pixels = torch.stack([model.preprocess(decode((folder / f"{i}.png").read_bytes())) for i in range(14)])
    with torch.no_grad():
        image = model.encode_image(pixels)
        text = model.encode_text(*model.tokenize([f"{NAMES[i % 6]}{i}" for i in range(14)]))
    if kind == "global":
        wanted = {"image": image.pooled, "text": text.pooled}
    else:
        words = torch.stack([t[m].mean(0) for t, m in zip(text.tokens, text.content_mask, strict=True)])
        wanted = {"image": F.normalize(image.tokens.mean(1), dim=-1), "text": F.normalize(words, dim=-1)}
    for what, vectors in wanted.items():
        found = Embeddings(folder / "out", what)
        np.testing.assert_allclose(found.take(np.arange(14)), vectors.numpy(), atol=2e-6)
    assert said["encoder"]["pooling"] == ("pooled" if kind == "global" else said["encoder"]["pooling"])
    assert ("mean" in said["encoder"]["pooling"]) == (kind != "global")
    part = pl.read_parquet(folder / "out/metadata/metadata_2.parquet")
    assert part["id"].to_list() == [f"square/{i}" for i in range(10, 14)]
    assert part["caption"][0] == f"{NAMES[4]}10"
    assert (folder / "out" / part["image_path"][1]).resolve() == folder / "11.png"


def test_a_tower_alone_has_images_and_no_texts(folder):
    encoder = open_tower("test_vit", init="random", size=64, device="cpu", precision="fp32")
    said = embed(encoder, folder / "out", what=("image",))
    pixels = encoder.preprocess(decode((folder / "3.png").read_bytes()))
    with torch.no_grad():
        wanted = F.normalize(encoder.tower(pixels[None]).pooled, dim=-1).numpy()
    found = Embeddings(folder / "out")
    assert (found.parts[0].dtype, said["encoder"]["tower"]) == (np.float16, "test_vit")
    np.testing.assert_allclose(found.take(np.array([3])), wanted, atol=2e-3)
    assert not (folder / "out/text_emb").exists()
    with pytest.raises(UsageError, match="no vectors of texts"):
        embed(encoder, folder / "both")
    with pytest.raises(UsageError, match="--init image="):
        open_tower("test_vit", init=None, size=None, device="cpu", precision="fp32")
    for name in ("package:nothing", "no_such_tower"):
        with pytest.raises(UsageError, match=name):
            open_tower(name, init=None, size=None, device="cpu", precision="fp32")


def test_bad_rows_are_left_out_and_counted(folder):
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    rows[2]["image"], rows[5]["text"] = "gone.png", []
    (folder / "7.png").write_bytes(b"<html>")
    write("rows.jsonl", rows)
    encoder = ModelVectors(tiny("global"))
    with pytest.raises(InputError, match=r"^rows.jsonl:3: gone.png"):
        embed(encoder, folder / "out")
    said = embed(encoder, folder / "out", max_bad="3", per_file=4)
    assert (said["rows"], said["vectors"], said["bad"]) == (14, 11, 3)
    assert Embeddings(folder / "out").ids() == [f"square/{i}" for i in range(14) if i not in (2, 5, 7)]
    with pytest.raises(InputError, match="max-bad"):  # the parts stand, and their bad rows count all the same
        embed(encoder, folder / "out", max_bad="2", per_file=4)


def test_other_rows_options_or_models_are_refused(folder):
    encoder = ModelVectors(tiny("global"))
    embed(encoder, folder / "out", per_file=5)
    before = tree(folder / "out")
    embed(encoder, folder / "out", per_file=5, batch=1)
    assert tree(folder / "out") == before
    with pytest.raises(UsageError, match="another per-file: 5 then, 6 now"):
        embed(encoder, folder / "out", per_file=6)
    with pytest.raises(UsageError, match="another encoder"):
        embed(ModelVectors(tiny("tokenwise")), folder / "out", per_file=5)
    assert tree(folder / "out") == before
    with pytest.raises(UsageError, match="part 2 was made of other rows than input rows 10 to 11"):
        embed(encoder, folder / "out", per_file=5, head=12)
    with pytest.raises(UsageError, match="part 2 stands there"):
        embed(encoder, folder / "out", per_file=5, head=10)
    with pytest.raises(InputError, match="not whole"):
        Embeddings(folder / "out")
    embed(encoder, folder / "out", per_file=7, force=True)
    assert len(Embeddings(folder / "out").parts) == 2
    (folder / "full").mkdir()
    (folder / "full/mine.txt").touch()
    with pytest.raises(UsageError, match="no embeddings"):
        embed(encoder, folder / "full")


def test_shards_give_the_rows_that_went_into_them(folder):
    from typer.testing import CliRunner

    from vlcli.cli import app

    done = CliRunner().invoke(
        app, ["shard", "-q", "rows.jsonl", "--per-shard", "6", "-j", "1", "-o", "shards"]
    )
    assert done.exit_code == 0, done.output
    encoder = ModelVectors(tiny("global"))
    embed(encoder, folder / "rows", dtype="float32")
    embed(encoder, folder / "tars", inputs=["shards"], dtype="float32", per_file=4, head=13)
    rows, tars = Embeddings(folder / "rows"), Embeddings(folder / "tars")
    assert tars.ids() == rows.ids()[:13]
    np.testing.assert_allclose(tars.take(np.arange(13)), rows.take(np.arange(13)), atol=1e-6)


def test_a_killed_run_is_finished_by_the_same_command(folder):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the script: sums depend on it
    encoder, out = ModelVectors(tiny("global")), folder / "out"
    embed(encoder, folder / "whole", per_file=2, batch=2)
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here}:{here.parents[1]}"}
    script = [sys.executable, str(here / "killed_embed.py"), str(out), str(folder / "whole")]
    stood = subprocess.run(
        script, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()
    embed(encoder, out, per_file=2, batch=2)
    torch.set_num_threads(threads)
    assert tree(out) == tree(folder / "whole")
    assert len(set(stood)) > 1


def test_the_command(folder):
    from typer.testing import CliRunner

    from vlcli.cli import app

    save_checkpoint(tiny("reduced"), folder / "model", recipe={}, lineage={})
    runner = CliRunner()
    done = runner.invoke(app, ["embed", "model", "rows.jsonl", "--what", "text", "-o", "out"])
    assert "14 rows of text, 16 dimensions, 1 parts; 0 bad; mean of" in done.stderr
    assert not (folder / "out/img_emb").exists()
    for line, said in (
        ("embed", "no checkpoint"),
        ("embed nowhere rows.jsonl", "nowhere: no such checkpoint"),
        ("embed model rows.jsonl --init image=x", "--init is about --tower"),
        ("embed model rows.jsonl --what image,image", "--what 'image,image'"),
    ):
        error = runner.invoke(app, line.split()).exception
        assert isinstance(error, UsageError)
        assert str(error).startswith(said)
