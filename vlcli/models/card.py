"""The model card of a checkpoint: README.md with the front matter that model hubs read.

Everything in it stands in the directory: architecture, recipe and lineage in config.json, numbers of parameters in the
header of the weights, scores in results.jsonl. What is not known is left out; nothing is estimated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from vlcli.errors import InputError
from vlcli.models import diffusion_card
from vlcli.models.layout import Layout
from vlcli.models.quickcheck import CONFIG, VOCABULARY, WEIGHTS, read_layout
from vlcli.text.wordpiece import VOCABULARY as CHINESE
from vlcli.text.wordpiece import WordPiece

CARD, RESULTS = "README.md", "results.jsonl"
FIELDS = ("checkpoint", "data", "split", "similarity")  # without them a number says nothing


def add_results(place: Path, results: Iterable[Mapping[str, Any]], checkpoint: str) -> int:
    """Add what `zeroshot --json` and `retrieve --json` say of the checkpoint in `place` to its results.jsonl.

    `checkpoint` is its hash. Returns how many lines were of other checkpoints, which stay out, as do repeated ones.
    Raises InputError for one that does not say what it was measured on.
    """
    known = read_results(place)
    others = 0
    for result in results:
        if missing := [name for name in FIELDS if not result.get(name)]:
            raise InputError(
                f"a result without {missing[0]}: {json.dumps(dict(result), ensure_ascii=False)[:80]}"
            )
        if result["checkpoint"] != checkpoint:
            others += 1
        elif result not in known:
            known.append(dict(result))
    if known:
        lines = b"".join(orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in known)
        (place / RESULTS).write_bytes(lines)
    return others


def read_results(place: Path) -> list[dict[str, Any]]:
    """The lines of a checkpoint's results.jsonl; none where it has no such file."""
    file = place / RESULTS
    return result_lines(file) if file.is_file() else []


def result_lines(file: Path) -> list[dict[str, Any]]:
    """What `zeroshot --json` and `retrieve --json` wrote to a file. Raises InputError, naming the line."""
    found = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            result = orjson.loads(line)
            assert isinstance(result, dict)
        except (ValueError, AssertionError) as error:
            raise InputError("not a JSON object", file=str(file), line=number) from error
        found.append(result)
    return found


def write_card(place: Path, *, license: str = "unknown") -> None:
    """README.md of a whole checkpoint directory. `license` is that of the weights, as hubs abbreviate it."""
    config = json.loads((place / CONFIG).read_text(encoding="utf-8"))
    text = card(config, read_layout(place / WEIGHTS), read_results(place), _languages(place), license)
    (place / CARD).write_text(text, encoding="utf-8", newline="\n")


def _languages(place: Path) -> list[str]:
    """Chinese where the vocabulary is BERT's Chinese one; of others nothing is known."""
    file = place / VOCABULARY
    if not file.is_file():
        return []
    return ["zh"] if WordPiece.load(file).pieces == WordPiece.load(CHINESE).pieces else []


def card(
    config: Mapping[str, Any],
    layout: Layout,
    results: Sequence[Mapping[str, Any]],
    languages: Sequence[str] = (),
    license: str = "unknown",
) -> str:
    """The text of README.md from a config.json, the tensors, and lines of results of this checkpoint."""
    architecture, recipe = config["architecture"], config.get("recipe") or {}
    name = recipe.get("name") or architecture.get("image", {}).get("name") or "checkpoint"
    spoken = dict.fromkeys([*languages, *(r["lang"] for r in results if _is_language(r.get("lang")))])
    if config.get("kind") == "classifier":
        return _card_of_classifier(config, layout, results, license)
    if config.get("kind") == "captioner":
        return _card_of_captioner(config, layout, results, list(spoken), license)
    if config.get("kind") == "diffusion-kv":
        return _card_of_key_values(config, layout, license)
    if config.get("kind") in diffusion_card.TITLES:
        return _card_of_diffusion(config, layout, license)
    alone = config.get("kind") == "text"
    parts = [
        _front_matter(license, list(spoken), architecture, alone),
        f"# {name}",
        _opening(recipe, "A text encoder" if alone else "A dual encoder of images and texts"),
        "## Architecture\n\n" + _list(_architecture(architecture, layout)),
        "## Use\n\n" + (_USE_OF_TEXT if alone else _USE),
        "## Lineage\n\n" + _list(_lineage(config)),
        "## Scores\n\n" + _scores(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _card_of_diffusion(config: Mapping[str, Any], layout: Layout, license: str) -> str:
    kind, recipe = config["kind"], config.get("recipe") or {}
    rows = diffusion_card.architecture_rows(kind, config["architecture"], _parameters(layout, ""))
    parts = [
        diffusion_card.front_matter(json.dumps(license)),
        f"# {recipe.get('name') or kind}",
        _opening(recipe, diffusion_card.TITLES[kind]),
        "## Architecture\n\n" + _list(rows),
        "## Use\n\n" + diffusion_card.USE,
        "## Lineage\n\n" + _list(_lineage(config)),
    ]
    return "\n\n".join(parts) + "\n"


def _card_of_classifier(
    config: Mapping[str, Any], layout: Layout, results: Sequence[Mapping[str, Any]], license: str
) -> str:
    architecture, recipe = config["architecture"], config.get("recipe") or {}
    labels, image = architecture["labels"], architecture["image"]
    pixels = architecture.get("evaluation") or image["preprocess"]
    front = ["---", f"license: {json.dumps(license)}", "library_name: vlcli"]
    front += ["pipeline_tag: image-classification", "tags:", "- image-classification", "---"]
    rows = [
        ("image tower", f"`{image['name']}` of timm, {_parameters(layout, 'image.')}"),
        ("images", f"{pixels['size']} × {pixels['size']}, {pixels['fit']}, {pixels['interpolation']}"),
        ("classes", f"{len(labels):,}: {', '.join(labels[:5])}{', …' if len(labels) > 5 else ''}"),
    ]
    parts = [
        "\n".join(front),
        f"# {recipe.get('name') or 'classifier'}",
        _opening(recipe, "An image tower with a linear head"),
        "## Architecture\n\n" + _list(rows),
        "## Use\n\n`vlcli zeroshot PATH --data test.jsonl --label-column label`",
        "## Lineage\n\n" + _list(_lineage(config)),
        "## Scores\n\n" + _scores(results),
    ]
    return "\n\n".join(parts) + "\n"


def _card_of_captioner(
    config: Mapping[str, Any],
    layout: Layout,
    results: Sequence[Mapping[str, Any]],
    languages: Sequence[str],
    license: str,
) -> str:
    architecture, recipe = config["architecture"], config.get("recipe") or {}
    layers = f"{architecture['cross']['layers']} layers, {_parameters(layout, 'cross.')}"
    front = ["---", f"license: {json.dumps(license)}", *_of_languages(languages)]
    front += ["library_name: vlcli", "pipeline_tag: image-to-text", "tags:", "- image-captioning", "---"]
    known = {"image": architecture["image"], "text": architecture["text"]}
    rows = [
        (name, value) for name, value in _architecture(known, layout) if name not in ("similarity", "in all")
    ]
    rows += [("cross encoder", f"{layers}, from left to right"), ("in all", _parameters(layout, ""))]
    parts = [
        "\n".join(front),
        f"# {recipe.get('name') or 'captioner'}",
        _opening(recipe, "A captioner"),
        "## Architecture\n\n" + _list(rows),
        "## Use\n\n`vlcli generate PATH --caption pairs.jsonl`",
        "## Lineage\n\n" + _list(_lineage(config)),
        "## Scores\n\n" + _scores(results),
    ]
    return "\n\n".join(parts) + "\n"


def _card_of_key_values(config: Mapping[str, Any], layout: Layout, license: str) -> str:
    about, recipe = config["architecture"], config.get("recipe") or {}
    front = ["---", f"license: {json.dumps(license)}", "library_name: vlcli"]
    front += ["pipeline_tag: text-to-image", "tags:", "- text-to-image", "- stable-diffusion", "---"]
    rows = [
        (
            "keys and values",
            f"{len(layout)} tensors, {_parameters(layout, '')}, and no other part of the UNet",
        ),
        ("UNet", f"`{about['unet']}`, which predicts {about['prediction']}; VAE `{about['vae']}`"),
        (
            "text encoder",
            f"`{about['encoder']}`, {about['length']} states of {about['width']} (`{about['states']}`)",
        ),
    ]
    parts = [
        "\n".join(front),
        f"# {recipe.get('name') or 'keys and values'}",
        _opening(recipe, "Keys and values of a diffusion model's cross-attention"),
        "## Architecture\n\n" + _list(rows),
        "## Use\n\n`vlcli generate MODEL --kv PATH --encoder RUN --text zh=… --text en=… -o pictures/`",
        "## Lineage\n\n" + _list(_lineage(config)),
    ]
    return "\n\n".join(parts) + "\n"


_USE = """```python
import vlcli

model = vlcli.load("PATH")  # this directory
image = model.encode_image(model.preprocess(picture)[None])
text = model.encode_text(*model.tokenize(["一只狐狸"]))
model.similarity(image, text).i2t
```"""


_USE_OF_TEXT = """```python
from vlcli.models.checkpoint import load_text_encoder

encoder = load_text_encoder("PATH")  # this directory
encoder(*encoder.tokenize(["一只狐狸"]))  # (1, width): what the teacher says of the text in English
```

`vlcli pretrain --init PATH` starts a dual encoder's text side from it."""


def _is_language(value: Any) -> bool:
    return isinstance(value, str) and value.isalpha() and len(value) in (2, 3) and value != "und"


def _front_matter(
    license: str, languages: Sequence[str], architecture: Mapping[str, Any], alone: bool
) -> str:
    tags = ["vision-language", "dual-encoder", str(architecture.get("similarity", "global"))]
    task = "zero-shot-image-classification"
    if alone:
        tags, task = ["distillation", "text-encoder"], "sentence-similarity"
    lines = ["---", f"license: {json.dumps(license)}"]
    lines += _of_languages(languages)
    lines += ["library_name: vlcli", f"pipeline_tag: {task}", "tags:"]
    return "\n".join([*lines, *(f"- {tag}" for tag in tags), "---"])


def _of_languages(languages: Sequence[str]) -> list[str]:
    """Quoted: bare, "no" would be false."""
    return ["language:", *(f"- {json.dumps(one)}" for one in languages)] if languages else []


def _opening(recipe: Mapping[str, Any], what: str) -> str:
    title = str(recipe.get("title") or what).rstrip(".")
    source = f" Source of the recipe: {recipe['source']}." if recipe.get("source") else ""
    return f"{title}.{source}"


def _list(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in rows if value)


_SIMILARITIES = {
    "global": "global: the cosine of two pooled vectors",
    "tokenwise": "token-wise: the mean over tokens of the best cosine among the other side's",
    "reduced": "token-wise, on a few learned tokens of an image",
}


def _architecture(architecture: Mapping[str, Any], layout: Layout) -> list[tuple[str, str]]:
    image, text = architecture.get("image", {}), architecture.get("text", {})
    pixels = image.get("preprocess", {})
    sizes = (("layers", "layers"), ("width", "wide"), ("heads", "heads"))
    shape = [f"{text[key]} {word}" for key, word in sizes if text.get(key)]
    causal = text.get("kind", "causal") == "causal"
    tower = "causal transformer" if causal else f"{text.get('name') or 'encoder'} of transformers"
    size = pixels.get("size")
    kind = str(architecture.get("similarity", ""))
    cross = architecture.get("ranking") or {}
    ranking = f"two cross encoders of {cross.get('layers')} layers, {_parameters(layout, 'ranking.')}"
    return [
        ("image tower", f"`{image.get('name')}` of timm, {_parameters(layout, 'image.')}" if image else ""),
        ("images", f"{size} × {size}, {pixels.get('fit')}, {pixels.get('interpolation')}" if size else ""),
        ("text tower", f"{tower}, {', '.join(shape)}, {_parameters(layout, 'text.')}"),
        ("texts", f"at most {text['context']} tokens" if text.get("context") else ""),
        ("joint space", f"{architecture['dim']} dimensions" if architecture.get("dim") else ""),
        ("similarity", _SIMILARITIES.get(kind, kind)),
        ("ranking", ranking if cross else ""),
        ("in all", _parameters(layout, "")),
    ]


def _parameters(layout: Layout, prefix: str) -> str:
    """Buffers that a file holds beside the parameters are whole numbers, or a normalisation's running statistics."""
    count = sum(
        math.prod(shape)
        for name, (kind, shape) in layout.items()
        if name.startswith(prefix) and "F" in kind and not name.endswith(("running_mean", "running_var"))
    )
    return f"{count:,} parameters"


def _lineage(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    recipe = config.get("recipe") or {}
    model, data = recipe.get("model") or {}, recipe.get("data") or {}
    rows = [("recipe", f"`{recipe['name']}`, whole in config.json" if recipe.get("name") else "")]
    for side in ("image", "text"):
        init = (model.get(side) or {}).get("init")
        rows.append((f"{side} tower started from", "random weights" if init == "random" else str(init or "")))
        rows.append((f"{side} tower", "locked" if (model.get(side) or {}).get("locked") else ""))
    rows.append(("batch", f"{data['batch_size']:,} pairs" if data.get("batch_size") else ""))
    rows += _flat(config.get("lineage") or {})
    rows += [(f"version of {name}", str(value)) for name, value in (config.get("versions") or {}).items()]
    return rows


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in table.items():
        shown = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            rows += _flat(value, f"{shown}, ")
        else:
            rows.append((shown, f"{value:,}" if isinstance(value, int) else f"`{value}`"))
    return rows


def _scores(results: Sequence[Mapping[str, Any]]) -> str:
    if not results:
        return "None were measured on these weights."
    percent = any("loss" not in result for result in results)
    told = f"{'In percent, o' if percent else 'O'}f checkpoint `{results[0]['checkpoint']}`."
    tables = (
        _table(columns, [result for result in results if key in result])
        for columns, key in ((_RETRIEVAL, "MR"), (_ZEROSHOT, "top1"), (_CAPTIONS, "loss"))
    )
    return "\n\n".join([told, *filter(None, tables)])


_WHERE = (("data", "data"), ("split", "split"), ("language", "lang"), ("prompts", "prompts"))
_RETRIEVAL = (
    *_WHERE,
    ("images", "images"),
    ("texts", "texts"),
    *((f"image→text R@{k}", f"i2t.R@{k}") for k in (1, 5, 10)),
    *((f"text→image R@{k}", f"t2i.R@{k}") for k in (1, 5, 10)),
    ("mean recall", "MR"),
)
_ZEROSHOT = (
    *_WHERE,
    ("labels", "labels"),
    ("images", "n"),
    ("classes", "classes"),
    ("top-1", "top1"),
    ("top-5", "top5"),
    ("mean per class", "mean_per_class"),
)
_CAPTIONS = (
    *_WHERE[:3],
    ("images", "images"),
    ("texts", "texts"),
    ("tokens", "tokens"),
    ("loss of a token (nats)", "loss"),
    ("CIDEr-D by characters, greedy", "cider_char"),
    ("CIDEr-D by jieba's words, greedy", "cider_jieba"),
)


def _table(columns: Sequence[tuple[str, str]], results: Sequence[Mapping[str, Any]]) -> str:
    if not results:
        return ""
    columns = [column for column in columns if any(_cell(result, column[1]) != "–" for result in results)]
    rows = [[title for title, _ in columns], ["---"] * len(columns)]
    rows += [[_cell(result, key) for _, key in columns] for result in results]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(result: Mapping[str, Any], key: str) -> str:
    value: Any = result
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if key == "data" and isinstance(value, str):
        value = Path(value).name  # where it lies on somebody's disk is nobody's business
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}" if key == "loss" else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")
