"""encode_text and encode_image against transformers' CLIPModel and open_clip's model with the same weights.

    OMP_NUM_THREADS=2 python tests/bench/encode.py [--rounds 5] [--texts 128] [--images 8]

A ViT-B/32 with CLIP's text tower, random weights, copied from transformers' model into the other two. Texts are names
and keywords of the corpus, in the ids of our tokenizer, with CLIP's end of text behind each. Each library gets them as
its own tokenizer pads them: transformers to the longest of the batch, open_clip to 77, which its model insists on. In
bf16 the others' weights are bf16, and ours, as `--precision bf16` makes it, an autocast. All take turns in one process;
a ratio above 1 says that ours is faster, and is the median over the rounds. The processor's time is shown beside the
clock, in which other work on the machine shows too.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from vlcli.evaluation.embed import inference
from vlcli.models.config import DualEncoderConfig
from vlcli.models.dual import DualEncoder

CORPUS = Path(__file__).parents[2] / "examples" / "emoji" / "raw.parquet"
CONTEXT, END = 77, 49407


def theirs() -> CLIPModel:
    torch.manual_seed(0)
    return CLIPModel(
        CLIPConfig(text_config={"eos_token_id": END}, vision_config={}, projection_dim=512)
    ).eval()


def ours(state: dict[str, Tensor]) -> DualEncoder:
    """Our model with the weights of transformers' `state`."""
    text = {"width": 512, "layers": 12, "heads": 8, "context": CONTEXT, "vocabulary": END + 1}
    model = DualEncoder(DualEncoderConfig.model_validate({"dim": 512, "similarity": "global", "text": text}))
    found = {
        "log_scale": state["logit_scale"],
        "image_projection.weight": state["visual_projection.weight"],
        "text_projection.weight": state["text_projection.weight"],
        "text.token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "text.positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "image.body.cls_token": state["vision_model.embeddings.class_embedding"][None, None],
        "image.body.pos_embed": state["vision_model.embeddings.position_embedding.weight"][None],
        "image.body.patch_embed.proj.weight": state["vision_model.embeddings.patch_embedding.weight"],
    }
    names = {
        "text_model.final_layer_norm": "text.ln_final",
        "vision_model.pre_layrnorm": "image.body.norm_pre",
        "vision_model.post_layernorm": "image.body.norm",
    }
    sides = (("text_model", "text.blocks", "ln_1 qkv out ln_2 fc proj"),)
    sides += (("vision_model", "image.body.blocks", "norm1 attn.qkv attn.proj norm2 mlp.fc1 mlp.fc2"),)
    for layer in range(12):
        for side, blocks, parts in sides:
            before = f"{side}.encoder.layers.{layer}"
            one, qkv, out, two, up, down = (f"{blocks}.{layer}.{part}" for part in parts.split())
            names |= {f"{before}.layer_norm1": one, f"{before}.layer_norm2": two}
            names |= {f"{before}.self_attn.out_proj": out}
            names |= {f"{before}.mlp.fc1": up, f"{before}.mlp.fc2": down}
            for kind in ("weight", "bias"):
                three = [state[f"{before}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
                found[f"{qkv}.{kind}"] = torch.cat(three)
    for theirs, mine in names.items():
        for kind in ("weight", "bias"):
            found[f"{mine}.{kind}"] = state[f"{theirs}.{kind}"]
    model.load_state_dict(found)
    return model.eval()


def openclips(state: dict[str, Tensor]) -> Any:
    """open_clip's model with the weights of our `state`."""
    model = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None).eval()
    found = {
        "logit_scale": state["log_scale"],
        "text_projection": state["text_projection.weight"].T,
        "visual.proj": state["image_projection.weight"].T,
        "token_embedding.weight": state["text.token_embedding.weight"],
        "positional_embedding": state["text.positional_embedding"],
        "visual.class_embedding": state["image.body.cls_token"][0, 0],
        "visual.positional_embedding": state["image.body.pos_embed"][0],
        "visual.conv1.weight": state["image.body.patch_embed.proj.weight"],
    }
    names = {
        "text.ln_final": "ln_final",
        "image.body.norm_pre": "visual.ln_pre",
        "image.body.norm": "visual.ln_post",
    }
    parts = ("ln_1", "attn.in_proj", "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    sides = (("text.blocks", "transformer", "ln_1 qkv out ln_2 fc proj"),)
    sides += (("image.body.blocks", "visual.transformer", "norm1 attn.qkv attn.proj norm2 mlp.fc1 mlp.fc2"),)
    for mine, side, own in sides:
        for layer in range(12):
            for name, part in zip(own.split(), parts, strict=True):
                names[f"{mine}.{layer}.{name}"] = f"{side}.resblocks.{layer}.{part}"
    for mine, other in names.items():
        for kind in ("weight", "bias"):
            joint = "_" if other.endswith("in_proj") else "."
            found[f"{other}{joint}{kind}"] = state[f"{mine}.{kind}"]
    model.load_state_dict(found)
    return model


def texts(model: DualEncoder, count: int) -> tuple[Tensor, Tensor]:
    """ids and mask of every so many-th row of the corpus: its Chinese name and keywords, and its English ones."""
    rows = pl.read_parquet(CORPUS, columns=["name", "keywords", "name_en", "keywords_en"]).unique(
        maintain_order=True
    )
    rows = rows.gather_every(max(1, len(rows) // count)).head(count)
    captions = []
    for number, (name, words, name_en, words_en) in enumerate(rows.iter_rows()):
        kinds = (name, "，".join([name, *words]), name_en, ", ".join([name_en, *words_en]))
        captions.append(kinds[number % 4])
    ids, mask = (torch.from_numpy(part) for part in model.tokenizer.encode(captions, length=CONTEXT))
    ids[torch.arange(len(ids)), mask.sum(1) - 1] = END
    return ids, mask


def padded(ids: Tensor) -> Tensor:
    return F.pad(ids, (0, CONTEXT - ids.shape[1]))


def race(entries: dict[str, Callable[[], Any]], rounds: int, what: str) -> None:
    """The entries in turns; the first is ours. Prints the medians of the ratios of each round."""
    for entry in entries.values():
        entry()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in entries}
    for _ in range(rounds):
        for name, entry in entries.items():
            start, used = time.perf_counter(), time.process_time()
            entry()
            times[name].append((time.perf_counter() - start, time.process_time() - used))
    mine, *others = times
    best = min(used for _, used in times[mine])
    for name in others:
        pairs = list(zip(times[mine], times[name], strict=True))
        clock, processor = (statistics.median(b[i] / a[i] for a, b in pairs) for i in (0, 1))
        least = min(used for _, used in times[name])
        print(
            f"{what:12} {name:14} {processor:5.2f}× by the processor's time ({least:.2f} s, ours {best:.2f} s),"
            f" {clock:5.2f}× by the clock",
            flush=True,
        )


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--precision", choices=("fp32", "bf16"), action="append")
    asked = parser.parse_args()
    clip = theirs()
    model = ours(clip.state_dict())
    other = openclips(model.state_dict())
    ids, mask = texts(model, asked.texts)
    lengths = mask.sum(1).tolist()
    print(f"{len(ids)} texts of {min(lengths)} to {max(lengths)} ids, median {statistics.median(lengths):g}")
    pixels = torch.randn(asked.images, 3, 224, 224)
    a, b = model.encode_text(ids, mask).pooled, clip.get_text_features(ids, mask.long()).pooler_output
    c = other.encode_text(padded(ids))
    d, e = model.encode_image(pixels).pooled, clip.get_image_features(pixels).pooler_output
    f = other.encode_image(pixels)
    assert a is not None
    assert d is not None
    for mine, found in ((a, b), (a, c), (d, e), (d, f)):
        torch.testing.assert_close(mine, F.normalize(found, dim=-1), rtol=0, atol=1e-5)
    for precision in asked.precision or ("fp32", "bf16"):
        kind = torch.float32 if precision == "fp32" else torch.bfloat16
        hf, oc = copy.deepcopy(clip).to(kind), copy.deepcopy(other).to(kind)
        seen = pixels.to(kind)

        def encode(call: Callable[[], Any], precision: str = precision) -> Callable[[], Any]:
            def run() -> Any:
                with inference(model, precision):
                    return call()

            return run

        race(
            {
                "vlcli": encode(lambda: model.encode_text(ids, mask)),
                "transformers": lambda hf=hf: hf.get_text_features(ids, mask.long()),
                "open_clip": lambda oc=oc: oc.encode_text(padded(ids)),
            },
            asked.rounds,
            f"text {precision}",
        )
        race(
            {
                "vlcli": encode(lambda: model.encode_image(pixels)),
                "transformers": lambda hf=hf, seen=seen: hf.get_image_features(seen),
                "open_clip": lambda oc=oc, seen=seen: oc.encode_image(seen),
            },
            asked.rounds,
            f"image {precision}",
        )


if __name__ == "__main__":
    main()
