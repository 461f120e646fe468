"""CxC in miniature: recalls of four directions against a literal count, correlations of the right pairs, real ids."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr
from tiny_models import square, tiny

from vlcli.datasets.cxc import load_cxc
from vlcli.datasets.table import open_dataset
from vlcli.errors import InputError, UsageError
from vlcli.evaluation.cxc import evaluate
from vlcli.evaluation.tasks import Retrieval
from vlcli.text.prompts import load_prompts

NONE = load_prompts("none")
# rows of the published files: ids of MS-COCO's sentences and images
STS = "COCO_val2014:sentid:411553,COCO_val2014:sentid:5142,1.56,c2c_isim"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cxc")
    sentids = [411553, 5142, *range(100, 114)]
    rng = np.random.default_rng(0)
    images = []
    for k in range(8):
        name = f"COCO_val2014_{k:012}.jpg"
        (folder / name).write_bytes(square(f"#{k * 30:02x}{200 - k * 20:02x}{k * 53 % 256:02x}", 30 + k))
        said = [{"raw": f"sentence {n} {'abcdefgh'[k]}", "sentid": n} for n in sentids[2 * k : 2 * k + 2]]
        images.append({"filename": name, "split": "test", "sentences": said, "sentids": []})
    (folder / "dataset_coco.json").write_text(json.dumps({"images": images}))
    texts = [f"COCO_val2014:sentid:{n}" for n in sentids]
    names = [one["filename"] for one in images]

    def rows(left, right, n):
        ends = rng.permutation(n) % len(left), rng.permutation(n) % len(right)
        pairs = [(left[a], right[b]) for a, b in zip(*ends, strict=True)]
        return [f"{a},{b},{rng.uniform(0, 5):.2f},x" for a, b in pairs if a != b]

    own = [f"{texts[j]},{names[j // 2]},4.9,c2i_original" for j in range(16)]
    for kind, header, lines in (
        ("sts", "caption1,caption2", [STS, *rows(texts, texts, 40)]),
        ("sis", "image1,image2", rows(names, names, 24)),
        ("sits", "caption,image", [*own, *rows(texts, names, 40)]),
    ):
        text = "\n".join([f"{header},agg_score,sampling_method", *lines, ""])
        (folder / f"{kind}_test.csv").write_text(text)
    return folder


def literal(score, positives, itself):
    hits, queries = dict.fromkeys((1, 5, 10), 0), 0
    for q, right in enumerate(positives):
        if not right:
            continue
        queries += 1
        wrong = [c for c in range(score.shape[1]) if c not in right and not (itself and c == q)]
        best = max(score[q, c] for c in right)
        rank = 1 + sum(score[q, c] >= best - 1e-6 for c in wrong)
        for k in hits:
            hits[k] += rank <= k
    return {f"R@{k}": pytest.approx(100 * n / queries, abs=1e-3) for k, n in hits.items()}, queries


@pytest.mark.parametrize("kind", ["global", "tokenwise"])
def test_recalls_and_correlations_are_those_of_a_literal_count(place, kind):
    model = tiny(kind)
    ratings, table = load_cxc(open_dataset("cxc", [str(place)]))
    found = evaluate(model, table, ratings, NONE, bootstrap=0)
    task = Retrieval(model, table, NONE)
    score = task.similarity(task.images, task.texts)
    assert (found["images"], found["texts"]) == (8, 16)
    texts = {name: j for j, name in enumerate(table.ids)}
    images = {name: i for i, name in enumerate(task.gallery.image_ids)}
    shown = [{2 * i, 2 * i + 1} for i in range(8)]
    beside = [{j ^ 1} for j in range(16)]
    alike = [set() for _ in range(8)]
    for one in ratings.sits:
        if one.score >= 3:
            shown[images[one.right]].add(texts[one.left])
    for rated, numbers, sets in ((ratings.sts, texts, beside), (ratings.sis, images, alike)):
        for one in rated:
            if one.score >= 3:
                sets[numbers[one.left]].add(numbers[one.right])
                sets[numbers[one.right]].add(numbers[one.left])
    asked = [{i for i in range(8) if j in shown[i]} for j in range(16)]

    def mean(features):
        if features.pooled is not None:
            return features.pooled.numpy()
        weights = np.ones(features.tokens.shape[:2])
        if hasattr(features, "content_mask"):
            weights = (
                features.content_mask if model.config.t2i_special_tokens == "exclude" else features.mask
            ).numpy()
        summed = (features.tokens.numpy() * weights[..., None]).sum(1)
        return summed / np.linalg.norm(summed, axis=1, keepdims=True)

    t, i = mean(task.texts), mean(task.images)
    for side, matrix, right, itself in (
        ("i2t", score.i2t.numpy(), shown, False),
        ("t2i", score.t2i.numpy().T, asked, False),
        ("t2t", t @ t.T, beside, True),
        ("i2i", i @ i.T, alike, True),
    ):
        recalls, queries = literal(matrix, right, itself)
        assert found[side] == recalls, side
        assert found["queries"][side] == queries
    ends = {
        "STS": [(t[texts[r.left]] @ t[texts[r.right]], r.score) for r in ratings.sts],
        "SIS": [(i[images[r.left]] @ i[images[r.right]], r.score) for r in ratings.sis],
        "SITS": [(score.i2t[images[r.right], texts[r.left]].item(), r.score) for r in ratings.sits],
    }
    for name, pairs in ends.items():
        expected = 100 * spearmanr(*zip(*pairs, strict=True)).statistic
        assert found["correlation"][name]["mean"] == pytest.approx(expected, abs=0.3), name
    means = [found["correlation"][name]["mean"] for name in ends]
    assert found["correlation"]["mean"] == pytest.approx(np.mean(means), abs=1e-3)


def test_intervals_and_deviations_hold_what_they_are_of(place):
    ratings, table = load_cxc(open_dataset("cxc", [str(place)]))
    found = evaluate(tiny("global"), table, ratings, NONE, bootstrap=50)
    for side in ("i2t", "t2i", "t2t", "i2i"):
        for k, (low, high) in found["ci95"][side].items():
            assert low <= found[side][k] <= high
    assert found["correlation"]["SIS"]["sd"] > 0
    assert found["correlation"]["SITS"]["queries"] == 8
    assert found["positives"] == "MS-COCO's, and rated >= 3"


def test_files_that_are_not_cxcs(place, tmp_path):
    for file in place.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "sts_test.csv"
    whole = path.read_text()

    def refused(text, error, match):
        path.write_text(text)
        with pytest.raises(error, match=match):
            load_cxc(open_dataset("cxc", [str(tmp_path)]))

    refused(whole.replace(",1.56,", ",?,"), InputError, r"sts_test\.csv:2: agg_score is '\?'")
    refused(whole.replace(",1.56,", ",6,"), InputError, r"sts_test\.csv:2: agg_score is '6'")
    refused(
        whole.replace("sentid:5142", "sentid:7", 1),
        InputError,
        r"csv:2: caption2 COCO_val2014:sentid:7 is not in",
    )
    refused(whole.replace("caption1", "left", 1), InputError, r"csv:1: its columns are not caption1,caption2")
    refused(whole.replace(",1.56", ""), InputError, r"csv:2: 3 values for 4 columns")
    path.unlink()
    with pytest.raises(UsageError, match=r"cxc: no sts_test\.csv"):
        load_cxc(open_dataset("cxc", [str(tmp_path)]))
