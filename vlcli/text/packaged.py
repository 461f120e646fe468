"""Names and templates that installed packages carry: of clip-benchmark (MIT) and of open_clip_torch (MIT).

Only their data are read; neither package is imported, as both would import torch. What they lack is one line that
names the extra.
"""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from vlcli.errors import UsageError

EXTRA = "pip install 'vlcli[class-names]'"
# AltCLIP's language → clip-benchmark's file, of those that name all 1,000 classes of ImageNet
FULL = {"en": "en", "zh": "cn", "ja": "jp", "it": "it", "ar": "ar"}
IMAGENET = "imagenet1k"


def imagenet_names(lang: str) -> list[str]:
    """The 1,000 names of ImageNet's classes in one of FULL."""
    if lang not in FULL:
        raise UsageError(
            f"imagenet.{lang}: all classes of ImageNet are named in {', '.join(FULL)}",
            remedy=f"babel-imagenet.{lang} names a part of them",
        )
    return list(_json(f"{FULL[lang]}_classnames.json")[IMAGENET])


def babel_names(lang: str) -> dict[int | str, str]:
    """Babel-ImageNet (Geigle et al. 2023, arXiv 2306.08658): class → name, of the classes that BabelNet names so."""
    numbers, names = _of(lang, _json("babel_imagenet.json"), "babel-imagenet")
    return dict(zip(numbers, names, strict=True))


def native_templates(lang: str) -> tuple[str, ...]:
    """clip-benchmark's templates in one of FULL: 80 English and Chinese, 37 Japanese, 49 Italian, 55 Arabic."""
    if lang not in FULL:
        raise UsageError(f"clip-benchmark.{lang}: its templates are in {', '.join(FULL)}")
    templates = _json(f"{FULL[lang]}_zeroshot_classification_templates.json")[IMAGENET]
    return _templates(templates)


def nllb_templates(lang: str) -> tuple[str, ...]:
    """CLIP's 80 templates as NLLB translates them, in 90 languages."""
    return _templates(_of(lang, _json("nllb_dist13b_prompts.json"), "nllb-80"))


def openai_templates() -> tuple[str, ...]:
    """CLIP's 80 English templates of ImageNet, from open_clip_torch."""
    tree = _tree("open_clip", "zero_shot_metadata.py", "open_clip_torch")
    for node in tree.body:
        if _assigned(node) == "OPENAI_IMAGENET_TEMPLATES":
            return tuple(_filled(item) for item in node.value.elts)  # type: ignore[attr-defined]
    raise UsageError("open_clip_torch has no OPENAI_IMAGENET_TEMPLATES", remedy=EXTRA)


@cache
def wordnet_ids(which: str = "imagenet") -> list[str]:
    """WordNet ids in the order of ImageNet's classes: of all 1,000, or of the 200 of imagenet-a or imagenet-r."""
    wanted = {
        "imagenet": "all_imagenet_wordnet_ids",
        "imagenet-a": "imagenet_a_wnids",
        "imagenet-r": "imagenet_r_wnids",
    }
    tree = _tree("clip_benchmark", "datasets/builder.py", "clip-benchmark")
    for node in ast.walk(tree):
        if _assigned(node) == wanted[which]:
            return sorted(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    raise UsageError(f"clip-benchmark has no {wanted[which]}", remedy=EXTRA)


def _templates(templates: Sequence[str]) -> tuple[str, ...]:
    # what is translated is "{}" among words, which left two spaces around it
    return tuple(" ".join(template.replace("{c}", "{}").split()) for template in templates)


def _of(lang: str, found: dict[str, Any], what: str) -> Any:
    if lang.upper() not in found:
        known = ", ".join(sorted(name.lower() for name in found))
        raise UsageError(f"{what}.{lang}: it has {len(found)} languages: {known}")
    return found[lang.upper()]


def _json(name: str) -> Any:
    return json.loads((_folder("clip_benchmark", "clip-benchmark") / "datasets" / name).read_bytes())


def _tree(module: str, name: str, package: str) -> ast.Module:
    return ast.parse((_folder(module, package) / name).read_text(encoding="utf-8"))


def _folder(module: str, package: str) -> Path:
    """Where a package lies; looking for it does not import it."""
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise UsageError(f"these names are {package}'s, which is not installed", remedy=EXTRA)
    return Path(found.submodule_search_locations[0])


def _assigned(node: ast.AST) -> str | None:
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return None


def _filled(function: ast.expr) -> str:
    """`lambda c: f"a photo of a {c}."` → "a photo of a {}."."""
    assert isinstance(function, ast.Lambda), "a template of open_clip is a function of the name"
    assert isinstance(function.body, ast.JoinedStr), "which gives an f-string"
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) else "{}" for part in function.body.values
    )
