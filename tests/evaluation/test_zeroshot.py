import numpy as np
import pytest
import torch
from tiny_models import COLOURS, square, table, tiny

from vlcli.errors import InputError
from vlcli.evaluation.class_metrics import accuracies, class_ranks
from vlcli.evaluation.embed import embed_images
from vlcli.evaluation.tasks import classify
from vlcli.evaluation.zeroshot import Classifier
from vlcli.text.labels import LabelSet
from vlcli.text.prompts import PromptSet, load_prompts

NAMES = list(COLOURS)
PROMPTS = PromptSet("three", ("{}", "一张{}的照片。", "{}的照片。"))


def one_text(model, text):
    return model.encode_text(*model.tokenize([text]))


@torch.no_grad()
def literal_scores(model, picture, ensemble, names=NAMES):
    """Spec §5.2, one image, one class and one template at a time."""
    image = model.encode_image(picture[None])
    per_template = []
    for template in PROMPTS.templates:
        row = []
        for name in names:
            text = one_text(model, template.replace("{}", name))
            row.append(float(model.similarity(image, text).i2t))
        per_template.append(row)
    if ensemble == "probability":
        return torch.tensor(per_template).double().softmax(1).mean(0)
    if model.similarity_kind == "tokenwise":
        return torch.tensor(per_template).double().mean(0)
    scores = []
    for name in names:
        vectors = [one_text(model, t.replace("{}", name)).pooled[0] for t in PROMPTS.templates]
        mean = torch.stack(vectors).mean(0)
        scores.append(float(image.pooled[0] @ (mean / mean.norm())))
    return torch.tensor(scores).double()


@pytest.mark.parametrize("ensemble", ["similarity", "probability"])
@pytest.mark.parametrize("kind", ["global", "tokenwise"])
def test_both_ensembles_equal_a_loop_over_templates_and_classes(kind, ensemble):
    model = tiny(kind)
    pictures = [square(colour) for colour in COLOURS.values()]
    images = embed_images(model, pictures, batch_size=4)
    found = Classifier(model, NAMES, PROMPTS, ensemble=ensemble, batch_size=5).scores(images)
    for i, data in enumerate(pictures):
        from vlcli.images.decode import decode

        expected = literal_scores(model, model.preprocess(decode(data)), ensemble)
        assert torch.allclose(found[i].double(), expected, atol=2e-6)


def test_the_two_ensembles_are_not_the_same_number():
    images = embed_images(tiny("global"), [square("red")])
    one, other = (
        Classifier(tiny("global"), NAMES, PROMPTS, ensemble=e).scores(images)
        for e in ("similarity", "probability")
    )
    assert not torch.allclose(one.double(), other.double())


def test_chunks_of_classes_change_nothing(monkeypatch):
    images = embed_images(tiny(), [square("red"), square("blue")])
    classifier = Classifier(tiny(), NAMES, PROMPTS)
    whole = classifier.scores(images)
    monkeypatch.setattr("vlcli.evaluation.zeroshot.tile_pairs", lambda *_: 1)
    assert torch.allclose(classifier.scores(images), whole, atol=1e-6)


def test_the_80_prompts_weigh_their_duplicates():
    prompts = load_prompts("wukong-80")
    assert len(prompts) == 80
    assert len(set(prompts.templates)) == 78
    texts = Classifier(tiny(), NAMES, prompts).texts
    assert len(texts.tokens) == 80 * len(NAMES)


def test_rank_of_the_true_class_is_that_of_argmax():
    scores = torch.tensor([[0.1, 0.5, 0.5, 0.2], [0.3, 0.3, 0.3, 0.3]])
    for label in range(4):
        place = class_ranks(scores, torch.tensor([label, label])).tolist()
        order = [sorted(range(4), key=lambda c, row=row: (-row[c], c)) for row in scores.tolist()]
        assert place == [o.index(label) + 1 for o in order]
    assert (class_ranks(scores, scores.argmax(1)) == 1).all()
    with pytest.raises(InputError, match="not finite"):
        class_ranks(torch.tensor([[float("nan"), 1.0]]), torch.tensor([0]))


# Scores of one image over the classes, the true class, its place.
PLACES = {
    "first": ([0.9, 0.1, 0.2], 0, 1),
    "last": ([0.9, 0.5, 0.2], 2, 3),
    "tie with a later class": ([0.5, 0.5, 0.1], 0, 1),
    "tie with an earlier class": ([0.5, 0.5, 0.1], 1, 2),
    "tie behind a better one": ([0.5, 0.9, 0.5], 2, 3),
    "all tie, the true class is the sixth": ([0.3] * 8, 5, 6),
    "one class is always right": ([-0.4], 0, 1),
}


@pytest.mark.parametrize("case", PLACES)
def test_places_written_out(case):
    scores, label, place = PLACES[case]
    assert class_ranks(torch.tensor([scores]), torch.tensor([label])).tolist() == [place]


def test_accuracies_by_hand():
    # class 0: two of two right; class 1: none of three within top 1, two within top 5; class 2 has no image
    result = accuracies(np.array([1, 1, 2, 5, 9]), np.array([0, 0, 1, 1, 1]), bootstrap=500, seed=0)
    assert (result["top1"], result["top5"], result["mean_per_class"]) == (40.0, 80.0, 50.0)
    for name in ("top1", "top5", "mean_per_class"):
        low, high = result["ci95"][name]
        assert 0 <= low <= result[name] <= high <= 100
    assert accuracies(np.array([1]), np.array([0]), bootstrap=500, seed=0)["ci95"] == {}


@pytest.mark.parametrize("seed", range(5))
def test_accuracies_are_torchmetrics_and_a_count(seed):
    """Every class has images: where one has none, torchmetrics' macro average counts it as 0 once it is guessed; it is
    left out here, as in scikit-learn's balanced accuracy and CLIP_benchmark's mean_per_class_recall."""
    from torchmetrics.functional.classification import multiclass_accuracy

    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.concatenate([np.arange(9), rng.integers(0, 9, 40)]))
    scores = rng.normal(size=(49, 9)) + 1.5 * np.eye(9)[labels]
    at, truth = torch.tensor(scores), torch.tensor(labels)
    result = accuracies(class_ranks(at, truth).numpy(), labels, bootstrap=0, seed=0)
    for name, options in (
        ("top1", {"average": "micro"}),
        ("top5", {"average": "micro", "top_k": 5}),
        ("mean_per_class", {"average": "macro"}),
    ):
        want = 100 * multiclass_accuracy(at, truth, num_classes=9, **options).item()
        assert result[name] == pytest.approx(want, abs=1e-3), name
    order = np.argsort(-scores, axis=1)
    per_class = [np.mean([order[i, 0] == c for i in range(49) if labels[i] == c]) for c in range(9)]
    assert result["mean_per_class"] == pytest.approx(100 * np.mean(per_class), abs=1e-3)
    assert result["top5"] == pytest.approx(
        100 * np.mean([labels[i] in order[i, :5] for i in range(49)]), abs=1e-3
    )


@pytest.mark.parametrize("kind", ["global", "tokenwise"])
def test_accuracies_of_a_model_are_those_of_the_loop_over_pictures_classes_and_templates(kind):
    """Two classes without an image and two with one name: the name's first class gets the right answers."""
    from vlcli.images.decode import decode

    model = tiny(kind)
    names = {0: "白色", 1: "红色", 2: "绿色", 3: "无", 4: "红色", 5: "蓝色", 6: "空"}
    truth = [1, 2, 5, 4, 2, 0]
    rows = table(number=truth)
    result = classify(model, rows, PROMPTS, column="number", labels=LabelSet("seven", names), bootstrap=0)
    right1 = right5 = 0
    of_class: dict[int, list[bool]] = {}
    for data, label in zip(rows.pictures, truth, strict=True):
        by_name = literal_scores(
            model, model.preprocess(decode(data)), "similarity", sorted(set(names.values()))
        )
        score = dict(zip(sorted(set(names.values())), by_name.tolist(), strict=True))
        order = sorted(names, key=lambda c, score=score: (-score[names[c]], c))
        right1 += order[0] == label
        right5 += label in order[:5]
        of_class.setdefault(label, []).append(order[0] == label)
    want = [right1 / 6, right5 / 6, np.mean([np.mean(found) for found in of_class.values()])]
    got = [result[name] for name in ("top1", "top5", "mean_per_class")]
    assert got == pytest.approx([100 * x for x in want], abs=1e-3)
    assert (result["classes"], result["n"], result["duplicate_names"]) == (7, 6, ["红色"])


@pytest.mark.parametrize("ensemble", ["similarity", "probability"])
@pytest.mark.parametrize("kind", ["global", "tokenwise"])
def test_neither_batches_nor_the_order_of_rows_change_a_number(kind, ensemble):
    def run(order, batch_size):
        rows = table()
        rows.pictures = [rows.pictures[i] for i in order]
        rows.frame = rows.frame[list(order)]
        how = {"labels": LabelSet("names", {n: n for n in NAMES}), "ensemble": ensemble}
        return classify(tiny(kind), rows, PROMPTS, bootstrap=0, batch_size=batch_size, **how)

    whole = run(range(6), 64)
    for batch_size in (1, 2, 5):
        assert run((3, 0, 5, 1, 4, 2), batch_size) == whole


def test_the_result_names_everything_it_was_measured_with():
    result = classify(tiny(), table(split=["val"] * 6), PROMPTS, bootstrap=50)
    keys = "checkpoint data split lang labels prompts similarity n classes top1 top5 mean_per_class ci95"
    assert set(keys.split()) <= set(result)
    assert (result["n"], result["classes"], result["lang"], result["split"]) == (6, 6, "zh", "val")
    assert (result["labels"], result["prompts"]) == ("values of label", "three")
    assert result["top5"] >= result["top1"]


def test_equal_names_score_equally_and_the_first_wins():
    labels = LabelSet("twice", {0: "红色", 1: "绿色", 2: "红色"})
    scores = Classifier(tiny(), list(labels.names.values()), PROMPTS).scores(
        embed_images(tiny(), [square("red")])
    )
    assert scores[0, 0] == scores[0, 2]
    rows = table(number=[0, 1, 2, 0, 1, 2])
    result = classify(tiny(), rows, PROMPTS, column="number", labels=labels, bootstrap=0)
    assert result["duplicate_names"] == ["红色"]


def test_rows_without_a_usable_label_are_input_errors():
    with pytest.raises(InputError, match="square/1 has no kind"):
        classify(tiny(), table(kind=["a", None, "a", "a", "a", "a"]), PROMPTS, column="kind")
    with pytest.raises(InputError, match="has no name") as error:
        classify(tiny(), table(), PROMPTS, labels=LabelSet("few", {"红色": "红色"}))
    assert error.value.exit_code == 3
