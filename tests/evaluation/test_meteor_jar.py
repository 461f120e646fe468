"""METEOR beside its jar: `pip install pycocoevalcap==1.2` and a Java runtime, then `pytest -m java`."""

from __future__ import annotations

import importlib.util
import random
import shutil
import subprocess
from pathlib import Path

import coco_cn
import pytest

from vlcli.evaluation.caption_metrics import meteor

PACKAGE = importlib.util.find_spec("pycocoevalcap")
pytestmark = [
    pytest.mark.java,
    pytest.mark.skipif(shutil.which("java") is None, reason="no Java runtime"),
    pytest.mark.skipif(PACKAGE is None, reason="no jar: pip install pycocoevalcap==1.2 (104 MB)"),
]


class Jar:
    """The jar as coco-caption asks it: a line of sentences to a line of counts, and lines of counts to scores."""

    def __init__(self):
        folder = Path(PACKAGE.submodule_search_locations[0]) / "meteor"
        self._process = subprocess.Popen(
            ["java", "-Xmx1G", "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm"],
            cwd=folder,
            env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )

    def ask(self, *parts):
        print(" ||| ".join(parts), file=self._process.stdin, flush=True)
        return self._process.stdout.readline().strip()

    def score(self, captions, references):
        counts = [self.ask("SCORE", *some, one) for one, some in zip(captions, references, strict=True)]
        each = [float(self.ask("EVAL", *counts)), *(float(self._process.stdout.readline()) for _ in captions)]
        return each[:-1], each[-1]

    def close(self):
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def jar():
    jar = Jar()
    yield jar
    jar.close()


def test_captions_of_a_system_score_as_the_jar_says(jar):
    """200 images of every system, commas and all."""
    _, rows, _ = coco_cn.stored()
    rows = rows[:200]
    for system in coco_cn.SYSTEMS:
        captions, references = [row["captions"][system] for row in rows], [row["references"] for row in rows]
        each, whole = jar.score(captions, references)
        stats = meteor.meteor_stats(captions, references)
        assert meteor.of_captions(stats) == pytest.approx(each, abs=1e-9)
        assert meteor.of_corpus(stats) == pytest.approx(whole, abs=1e-9)


def test_strings_of_few_characters_score_as_the_jar_says(jar):
    """What has many ties; the jar may break a few of them otherwise."""
    rng = random.Random(0)
    texts = [
        "".join(rng.choices("的人一狗。，！ ", k=rng.randint(1, 12))).strip() or "狗" for _ in range(600)
    ]
    captions, references = texts[:300], [[one] for one in texts[300:]]
    each, _ = jar.score(captions, references)
    off = abs(meteor.of_captions(meteor.meteor_stats(captions, references)) - each) > 1e-9
    assert off.mean() < 0.01
