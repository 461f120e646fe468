"""BLEU, ROUGE-L, CIDEr-D and METEOR over 5,000 images with 5 references each, ours and pycocoevalcap's (by its jar).

    pip install pycocoevalcap==1.2 && OMP_NUM_THREADS=1 python tests/bench/caption_metrics.py [--images N]

The captions are those of five systems for COCO-CN's test images, each system's images under names of their own.
Processor time is counted, the jar's with it: other work on the machine moves it less than it moves the clock.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data" / "coco_cn" / "test.jsonl.gz"


def spent() -> float:
    """Seconds of processor time, of this process and of its children that have ended."""
    now = os.times()
    return now.user + now.system + now.children_user + now.children_system


def timed(name: str, work: Callable[[], Any]) -> tuple[float, Any]:
    began = spent()
    found = work()
    took = spent() - began
    print(f"  {name:<28}{took:8.2f} s", flush=True)
    return took, found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=5000)
    images = parser.parse_args().images
    _, *rows = map(json.loads, gzip.decompress(DATA.read_bytes()).splitlines())
    captions, references = [], []
    for system in rows[0]["captions"]:
        captions += [row["captions"][system] for row in rows]
        references += [row["references"][:5] for row in rows]
    captions, references = captions[:images], references[:images]
    print(f"{len(captions)} images, {sum(map(len, references))} references")

    from vlcli.evaluation.caption_metrics.score import score_captions

    def ours(*metrics: str, bootstrap: int = 0) -> Callable[[], Any]:
        return lambda: score_captions(
            captions, references, tokenizers=("words",), metrics=metrics, bootstrap=bootstrap
        )

    print("ours")
    table_ours, table = timed("BLEU, ROUGE-L, CIDEr-D", ours("bleu", "rougeL", "cider"))
    meteor_ours, alone = timed("METEOR", ours("meteor"))
    timed("all, with 1,000 resamples", ours("bleu", "rougeL", "cider", "meteor", bootstrap=1000))

    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge

    truth = dict(enumerate(references))
    said = {i: [caption] for i, caption in enumerate(captions)}

    def theirs() -> list[float]:
        scores, _ = Bleu(4).compute_score(truth, said, verbose=0)
        return [*scores, *(metric.compute_score(truth, said)[0] for metric in (Rouge(), Cider()))]

    def jar() -> float:
        meteor = Meteor()
        score = meteor.compute_score(truth, said)[0]
        meteor.meteor_p.stdin.close()
        meteor.meteor_p.wait()
        return float(score)

    print("pycocoevalcap")
    table_theirs, scores = timed("BLEU, ROUGE-L, CIDEr-D", theirs)
    meteor_theirs, score = timed("METEOR, by the jar", jar)
    print(
        f"ratio: {table_theirs / table_ours:.1f} without METEOR, METEOR {meteor_theirs / meteor_ours:.1f}, ",
        end="",
    )
    print(f"all {(table_theirs + meteor_theirs) / (table_ours + meteor_ours):.1f}")
    apart = [abs(a - 100 * b) for a, b in zip(table.corpus.values(), scores, strict=True)]
    print(
        f"numbers apart: {max(apart):.1e}, METEOR {abs(alone.corpus['meteor_char'] - 100 * score):.1e} (×100)"
    )


if __name__ == "__main__":
    main()
