import numpy as np
import pytest
import torch
from tiny_models import COLOURS, square, table, tiny

from vlcli.errors import InputError
from vlcli.evaluation.embed import embed_images
from vlcli.evaluation.tasks import classify
from vlcli.evaluation.zeroshot import Classifier, accuracies, class_ranks
from vlcli.text.labels import LabelSet
from vlcli.text.prompts import PromptSet, load_prompts

NAMES = list(COLOURS)
PROMPTS = PromptSet("three", ("{}", "一张{}的照片。", "{}的照片。"))


def one_text(model, text):
    return model.encode_text(*model.tokenize([text]))


@torch.no_grad()
def literal_scores(model, picture, ensemble):
    """Spec §5.2, one image, one class and one template at a time."""
    image = model.encode_image(picture[None])
    per_template = []
    for template in PROMPTS.templates:
        row = []
        for name in NAMES:
            text = one_text(model, template.replace("{}", name))
            row.append(float(model.similarity(image, text).i2t))
        per_template.append(row)
    if ensemble == "probability":
        return torch.tensor(per_template).double().softmax(1).mean(0)
    if model.similarity_kind == "tokenwise":
        return torch.tensor(per_template).double().mean(0)
    scores = []
    for name in NAMES:
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
        assert torch.allclose(found[i], expected, atol=2e-6)


def test_the_two_ensembles_are_not_the_same_number():
    images = embed_images(tiny("global"), [square("red")])
    one, other = (
        Classifier(tiny("global"), NAMES, PROMPTS, ensemble=e).scores(images)
        for e in ("similarity", "probability")
    )
    assert not torch.allclose(one, other)


def test_chunks_of_classes_change_nothing(monkeypatch):
    images = embed_images(tiny(), [square("red"), square("blue")])
    classifier = Classifier(tiny(), NAMES, PROMPTS)
    whole = classifier.scores(images)
    monkeypatch.setattr("vlcli.evaluation.zeroshot.tile_side", lambda *_: 1)
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


def test_accuracies_by_hand():
    # class 0: two of two right; class 1: none of three within top 1, two within top 5; class 2 has no image
    result = accuracies(np.array([1, 1, 2, 5, 9]), np.array([0, 0, 1, 1, 1]), bootstrap=500, seed=0)
    assert (result["top1"], result["top5"], result["mean_per_class"]) == (40.0, 80.0, 50.0)
    for name in ("top1", "top5", "mean_per_class"):
        low, high = result["ci95"][name]
        assert 0 <= low <= result[name] <= high <= 100
    assert accuracies(np.array([1]), np.array([0]), bootstrap=500, seed=0)["ci95"] == {}


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
    with pytest.raises(InputError, match="has no name"):
        classify(tiny(), table(), PROMPTS, labels=LabelSet("few", {"红色": "红色"}))
