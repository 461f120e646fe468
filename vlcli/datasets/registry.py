"""The data sets by name: their files, their splits, and how many images and texts each split must have."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from vlcli.datasets import (
    aic_icc,
    aligned,
    coco_captions,
    coco_cn,
    comma_lines,
    crossmodal,
    flickr30k_cna,
    flickr_cn,
    karpathy,
    queries,
    zero,
)
from vlcli.datasets.row import Row
from vlcli.datasets.source import Source
from vlcli.errors import UsageError

ALIASES = {"valid": "val", "validation": "val", "dev": "val"}
Reader = Callable[[Source, str, str], Iterator[Row]]  # of the files, the file that was found, and the split


class Form(NamedTuple):
    """One way in which a set is published: `patterns[split]` are names of the file that shows it is there."""

    patterns: Mapping[str, tuple[str, ...]]
    rows: Reader


class Counts(NamedTuple):
    """Of a split: images, and texts (of each language, where there are several); None where it is not published."""

    images: int | None
    texts: int | Mapping[str, int] | None

    def of(self, langs: tuple[str, ...]) -> int | None:
        """Texts in `langs`."""
        if not isinstance(self.texts, Mapping):
            return self.texts
        return sum(self.texts[lang] for lang in langs or self.texts if lang in self.texts)


@dataclass(frozen=True)
class DataSet:
    """`reported` is the split that the papers' numbers are of. `directions` are those in which it is asked."""

    name: str
    what: str
    forms: tuple[Form, ...]
    splits: Mapping[str, Counts]
    reported: str = "test"
    langs: tuple[str, ...] = ("zh",)
    directions: tuple[str, ...] = ("i2t", "t2i")
    task: str = "retrieval"

    def split(self, name: str | None) -> str:
        """The split's name here. Raises UsageError for one that the set does not have."""
        found = self.reported if name is None else ALIASES.get(name, name)
        if found not in self.splits:
            raise UsageError(f"--split {name}: {self.name} has {', '.join(self.splits)}")
        return found


def _form(rows: Reader, *patterns: str, **of_splits: str) -> Form:
    """`patterns` have `{split}`, or the name that a split has in these files."""
    names = {"train": "train", "val": "val", "test": "test"} | of_splits
    return Form({split: tuple(p.format(split=name) for p in patterns) for split, name in names.items()}, rows)


def _only(rows: Reader, split: str, *patterns: str) -> Form:
    return Form({split: patterns}, rows)


def _each(texts: int, *langs: str) -> dict[str, int]:
    return dict.fromkeys(langs, texts)


_CHINESE_CLIP = _form(queries.rows, "{split}_texts.jsonl", "{split}_queries.jsonl", val="valid")
_COCO = {
    "train": Counts(113_287, 566_747),  # with Karpathy's restval
    "val": Counts(5_000, 25_010),
    "test": Counts(5_000, 25_010),
}
_MULTI30K = ("test", "val", "train", "test_2017_flickr", "test_2017_mscoco", "test_2018_flickr")
_LISTS = {
    split: (
        f"{base}_images.txt",
        f"image_splits/{base}.txt",
        f"image_splits/{first}.txt",
        f"{first}.txt",
    )
    for split, base, first in (
        ("test", "test_2016", "test_2016_flickr"),
        *((name, name, name) for name in _MULTI30K[1:]),
    )
}
_FIVE = {"en": 5, "de": 5, "fr": 1, "cs": 1}


def _multi30k(five: Mapping[str, int]) -> dict[str, Counts]:
    """Splits of the year 2016 have task 2's captions too; of the later tests there is one caption an image."""
    images = {"train": 29_000, "val": 1_014, "test": 1_000}
    in_2017 = {"test_2017_flickr": 1_000, "test_2017_mscoco": 461}
    return {
        **{name: Counts(n, {lang: n * five[lang] for lang in five}) for name, n in images.items()},
        **{name: Counts(n, _each(n, "en", "de", "fr")) for name, n in in_2017.items()},
        "test_2018_flickr": Counts(1_071, _each(1_071, *five)),
    }


def _zero(name: str, what: str, file: str, task: str, thousands: tuple[int, int]) -> DataSet:
    splits = ("train", "val")
    return DataSet(
        name,
        what,
        (_form(zero.rows, f"{file}_{{split}}.json"),),
        {s: Counts(None, 1_000 * n) for s, n in zip(splits, thousands, strict=True)},
        reported="val",
        task=task,
    )


_ALL = (
    DataSet(
        "muge",
        "e-commerce queries, several images each; texts to images only",
        (_form(queries.rows, "MR_{split}_queries.jsonl", val="valid"), _CHINESE_CLIP),
        {"train": Counts(129_380, 248_786), "val": Counts(29_806, 5_008), "test": Counts(30_399, 5_004)},
        reported="val",
        directions=("t2i",),
    ),
    DataSet(
        "flickr30k-cn",
        "Flickr30k in Chinese; the test's by people",
        (
            _form(flickr_cn.rows, "*flickr30kzhm*{split}.caption.txt", "*flickr30kzh*{split}.caption.txt"),
            _CHINESE_CLIP,
            _form(comma_lines.chinese, "flickr30k_{split}_zh.txt"),
        ),
        {"train": Counts(29_783, 148_915), "val": Counts(1_000, 5_000), "test": Counts(1_000, 5_000)},
    ),
    DataSet(
        "flickr8k-cn",
        "Flickr8k in Chinese",
        (
            _form(flickr_cn.rows, "*flickr8kzhm*{split}.caption.txt", "*flickr8kzh*{split}.caption.txt"),
            _CHINESE_CLIP,
            _form(comma_lines.chinese, "flickr8k_{split}_zh.txt"),
        ),
        {"train": Counts(6_000, 30_000), "val": Counts(1_000, 5_000), "test": Counts(1_000, 5_000)},
    ),
    DataSet(
        "flickr30k-cna",
        "all of Flickr30k translated anew by linguists",
        (_form(flickr30k_cna.rows, "flickr30k_cna_{split}.txt", "flickr30k_cn_{split}.txt"),),
        {"train": Counts(29_783, 148_915), "val": Counts(1_000, 5_000), "test": Counts(1_000, 5_000)},
    ),
    DataSet(
        "coco-cn",
        "sentences that people wrote of MS-COCO's images",
        (_form(coco_cn.rows, "coco-cn_{split}.txt"), _CHINESE_CLIP),
        {"train": Counts(18_341, 20_065), "val": Counts(1_000, 1_100), "test": Counts(1_000, 1_053)},
    ),
    DataSet(
        "coco-cn-translated",
        "the English sentences of COCO-CN's test images, translated by people",
        (_only(coco_cn.translated, "test", "coco-cn_test.txt"),),
        {"test": Counts(1_000, 5_000)},
    ),
    DataSet(
        "aic-icc",
        "AI Challenger's captions; test: the first 10,000 validation images, val: those behind them",
        (
            Form(
                {
                    "train": ("caption_train_annotations_*.json",),
                    "val": ("caption_validation_annotations_*.json",),
                    "test": ("caption_validation_annotations_*.json",),
                },
                aic_icc.rows,
            ),
        ),
        {
            "train": Counts(210_000, 1_050_000),
            "val": Counts(20_000, 100_000),
            "test": Counts(10_000, 50_000),
        },
    ),
    _zero("icr", "images and captions, one each", "long_itr", "retrieval", (160, 20)),
    _zero("iqr", "images and search queries, one each", "short_itr", "retrieval", (160, 20)),
    _zero("icm", "does the caption fit the image?", "long_itm", "matching", (320, 40)),
    _zero("iqm", "does the search query fit the image?", "short_itm", "matching", (320, 40)),
    DataSet(
        "flickr30k",
        "five English captions an image, Karpathy's splits",
        (
            _form(karpathy.rows, "dataset_flickr30k.json"),
            _form(comma_lines.rows, "flickr30k_{split}_karpathy.txt"),
        ),
        {"train": Counts(29_000, 145_000), "val": Counts(1_014, 5_070), "test": Counts(1_000, 5_000)},
        langs=("en",),
    ),
    DataSet(
        "coco",
        "MS-COCO's English captions, Karpathy's splits or the official files",
        (
            _form(karpathy.rows, "dataset_coco.json"),
            _form(coco_captions.rows, "coco_{split}_karpathy.json"),
            Form(
                {
                    name: (f"captions_{name}.json",)
                    for name in ("train2014", "val2014", "train2017", "val2017")
                },
                coco_captions.rows,
            ),
        ),
        {
            **_COCO,
            "train2014": Counts(82_783, None),
            "val2014": Counts(40_504, None),
            "train2017": Counts(118_287, None),
            "val2017": Counts(5_000, None),
        },
        langs=("en",),
    ),
    DataSet(
        "multi30k",
        "Flickr30k in four languages: five captions in en and de (task 2), one in fr and cs",
        (Form(_LISTS, aligned.multi30k),),
        _multi30k(_FIVE),
        langs=aligned.MULTI30K,
    ),
    DataSet(
        "multi30k-task1",
        "the same, one translated caption in each of the four",
        (Form(_LISTS, aligned.multi30k_task_1),),
        _multi30k(dict.fromkeys(_FIVE, 1)),
        langs=aligned.MULTI30K,
    ),
    DataSet(
        "xtd",
        "1,000 of MS-COCO's images, a caption in each of eleven languages",
        (_only(aligned.xtd, "test", "test_image_names.txt"),),
        {"test": Counts(1_000, _each(1_000, *aligned.XTD))},
        langs=aligned.XTD,
    ),
    DataSet(
        "crossmodal-3600",
        "3,600 images from all over the world, several captions in each of 36 languages",
        (_only(crossmodal.rows, "test", "captions.jsonl"),),
        {"test": Counts(3_600, None)},
        langs=crossmodal.LANGS,
    ),
    DataSet(
        "cxc",
        "MS-COCO with further human ratings of texts, images, and both",
        (_form(karpathy.rows, "dataset_coco.json"),),
        {split: _COCO[split] for split in ("val", "test")},
        langs=("en",),
        task="cxc",
    ),
)
SETS = {found.name: found for found in _ALL}


def find(name: str, task: str | None = None) -> DataSet:
    """The set of that name. Raises UsageError where there is none, or where it is another task's."""
    found = SETS.get(name.lower())
    if found is None:
        near = difflib.get_close_matches(name.lower(), SETS, 1)
        remedy = f"did you mean {near[0]}?" if near else f"there are {', '.join(SETS)}"
        raise UsageError(f"no data set is called {name!r}", remedy=remedy)
    if task is not None and found.task != task:
        raise UsageError(f"the data set {name} is for {_TASKS[found.task]}, not for {_TASKS[task]}")
    return found


_TASKS = {
    "retrieval": "retrieval",
    "matching": "matching (zeroshot --task matching)",
    "cxc": "retrieve, which correlates with its ratings",
}
