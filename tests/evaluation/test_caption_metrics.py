"""BLEU, ROUGE-L, CIDEr-D and METEOR: against published scores, and against the formulas written out."""

from __future__ import annotations

import math
from collections import Counter
from itertools import permutations, zip_longest

import coco_cn
import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from vlcli.errors import UsageError
from vlcli.evaluation.caption_metrics import bleu, meteor
from vlcli.evaluation.caption_metrics.cider import cider
from vlcli.evaluation.caption_metrics.corpus import Corpus
from vlcli.evaluation.caption_metrics.rouge_l import common_lengths, rouge_l
from vlcli.evaluation.caption_metrics.score import score_captions
from vlcli.evaluation.caption_metrics.segment import segment

# The jar's beam loses the better of two alignments here, by an order of ties that is its own.
OFF = {("aic-icc", 105113), ("coco-mt", 11180)}

sentences = st.lists(st.sampled_from("ab犬猫"), max_size=6)
sets = st.lists(st.tuples(sentences, st.lists(sentences, min_size=1, max_size=3)), min_size=1, max_size=5)


@pytest.mark.parametrize("system", coco_cn.SYSTEMS)
def test_published_scores_come_out_of_the_set_and_of_every_image(system):
    overall, rows, references = coco_cn.stored()
    captions = [row["captions"][system] for row in rows]
    found = score_captions(captions, references, tokenizers=("words",), bootstrap=0)
    for k, name in enumerate(coco_cn.NAMES.values()):
        assert found.corpus[name] / 100 == pytest.approx(overall[system][k], abs=0.0005 + 1e-9), name
        published = np.array([row["scores"][system][k] for row in rows])
        off = np.flatnonzero(np.abs(found.images[name] / 100 - published) > 0.0005 + 1e-9)
        known = {image for of, image in OFF if of == system} if name == "meteor_char" else set()
        assert {rows[i]["image_id"] for i in off} == known, name


def test_the_tokenizer_decides_as_much_as_the_captions():
    """Of one system: words as stored, as jieba cuts them, and characters."""
    _, rows, references = coco_cn.stored()
    captions = [row["captions"]["coco-cn"] for row in rows]
    found = score_captions(
        captions, references, tokenizers=("words", "jieba", "char"), metrics=("bleu", "cider"), bootstrap=0
    )
    shown = {name: round(value, 1) for name, value in found.corpus.items()}
    assert [shown[f"bleu4_{of}"] for of in ("words", "jieba", "char")] == [31.7, 24.2, 43.1]
    assert [shown[f"cider_{of}"] for of in ("words", "jieba", "char")] == [84.6, 70.1, 111.8]


@pytest.mark.parametrize("system", coco_cn.SYSTEMS)
def test_sacrebleu_says_the_same_of_words_and_of_characters(system):
    _, rows, references = coco_cn.stored()
    captions = [row["captions"][system] for row in rows]
    ours = score_captions(
        captions, references, tokenizers=("words", "char"), metrics=("bleu",), bootstrap=0
    ).corpus
    for tokenizer in ("words", "char"):

        def cut(text, tokenizer=tokenizer):
            return text if tokenizer == "words" else " ".join("".join(text.split()))

        streams = zip_longest(*([cut(text) for text in some] for some in references))
        theirs = sacrebleu.corpus_bleu(
            [cut(text) for text in captions],
            [list(stream) for stream in streams],
            tokenize="none",
            smooth_method="none",
            force=True,
        )
        assert ours[f"bleu4_{tokenizer}"] == pytest.approx(theirs.score, abs=1e-5)


def grams(words, order):
    return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))


def literal_bleu(pairs):
    """coco-caption's sums over (caption, references) pairs."""
    length = sum(len(words) for words, _ in pairs)
    closest = sum(min((abs(len(r) - len(words)), len(r)) for r in some)[1] for words, some in pairs)
    product, found = 1.0, []
    for order in (1, 2, 3, 4):
        correct = guessed = 0
        for words, some in pairs:
            most = Counter()
            for reference in some:
                most |= grams(reference, order)
            correct += sum((grams(words, order) & most).values())
            guessed += max(0, len(words) - order + 1)
        product *= (correct + 1e-15) / (guessed + 1e-9)
        found.append(product ** (1 / order))
    ratio = (length + 1e-15) / (closest + 1e-9)
    return [one * math.exp(1 - 1 / ratio) if ratio < 1 else one for one in found]


@given(sets)
def test_bleu_is_the_sums_of_counts(pairs):
    counts = bleu.counts(Corpus([words for words, _ in pairs], [some for _, some in pairs]))
    assert bleu.of_corpus(counts) == pytest.approx(literal_bleu(pairs), rel=1e-9, abs=1e-12)
    each = bleu.of_captions(counts)
    for i, pair in enumerate(pairs):
        assert each[i] == pytest.approx(literal_bleu([pair]), rel=1e-9, abs=1e-12)


def literal_cider(pairs):
    """tf-idf vectors as dictionaries, one pair of sentences after the other."""
    scores = []
    for words, some in pairs:
        total = 0.0
        for order in (1, 2, 3, 4):
            seen = [set().union(*(grams(r, order) for r in others)) for _, others in pairs]
            documents = {gram: sum(gram in one for one in seen) for gram in set().union(*seen)}
            rare = {gram: math.log(len(pairs) / max(1, count)) for gram, count in documents.items()}
            unseen = math.log(len(pairs))
            ours = {gram: count * rare.get(gram, unseen) for gram, count in grams(words, order).items()}
            for reference in some:
                theirs = {gram: count * rare[gram] for gram, count in grams(reference, order).items()}
                dot = sum(min(ours[gram], theirs[gram]) * theirs[gram] for gram in ours.keys() & theirs)
                norms = math.hypot(*ours.values()) * math.hypot(*theirs.values())
                apart = max(0, len(words) - 1) - max(0, len(reference) - 1)
                if norms > 0:
                    total += dot / norms * math.exp(-(apart**2) / 72) / len(some)
        scores.append(total / 4 * 10)
    return scores


@given(sets)
def test_cider_is_the_cosine_of_tf_idf(pairs):
    corpus = Corpus([words for words, _ in pairs], [some for _, some in pairs])
    assert cider(corpus) == pytest.approx(literal_cider(pairs), rel=1e-9, abs=1e-9)


def test_cider_of_one_image_is_nothing():
    assert score_captions(["一只狗"], [["一只狗"]], bootstrap=0).corpus["cider_char"] == 0


def longest_common(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            table[i][j] = table[i - 1][j - 1] + 1 if x == y else max(table[i - 1][j], table[i][j - 1])
    return table[-1][-1]


@given(sentences, st.lists(sentences, min_size=1, max_size=3))
def test_common_subsequences_are_those_of_the_textbook(words, references):
    common = [longest_common(words, one) for one in references]
    assert common_lengths(words, references) == common
    precision = max(common) / len(words) if words else 0
    recall = max(c / len(one) if one else 0 for c, one in zip(common, references, strict=True))
    expected = 2.44 * precision * recall / (recall + 1.44 * precision) if precision and recall else 0
    assert rouge_l([words], [references]) == pytest.approx([expected])


def test_precision_and_recall_of_rouge_may_be_of_two_references():
    # precision 2/2 with the first, recall 1/1 with the second
    assert rouge_l([["甲", "乙"]], [[["甲", "丙", "乙"], ["甲"]]]) == pytest.approx([1.0])


def cost(place, words, reference):
    """(−matches, chunks, distance) of an alignment."""
    pairs = [(j, i) for j, i in enumerate(place) if i >= 0]
    assert all(words[i] == reference[j] for j, i in pairs)
    assert len({i for _, i in pairs}) == len(pairs)
    chunks = sum((j - 1, i - 1) not in pairs for j, i in pairs)
    return -len(pairs), chunks, sum(abs(i - j) for j, i in pairs)


few = st.lists(st.sampled_from("abc"), max_size=4)


@given(few, few)
def test_a_wide_beam_finds_the_best_of_all_alignments(words, reference):
    slots = [*range(len(words)), *[-1] * len(reference)]
    best = min(
        cost(place, words, reference)
        for place in set(permutations(slots, len(reference)))
        if all(i < 0 or words[i] == reference[j] for j, i in enumerate(place))
    )
    assert cost(meteor.align(words, reference, beam=10_000), words, reference) == best


@pytest.mark.parametrize(
    ("caption", "reference", "score"),
    [  # what `java -jar meteor-1.5.jar - - -stdio -l en -norm` says
        ("一个 人", "一个 人 在 海边", 0.2801919259156008),
        ("iPhone手机", "iphone 手机", 1.0),
        ("一个人，在。", "一个人", 0.4507435329946623),
        ("一个人,在", "一个人", 0.48595787150987024),  # a half-width comma is a word of little weight
        ("“狗”", "狗", 0.36363636363636365),
        ("你好！", "你好", 0.4443438716486749),
        ("12个人", "十二个人", 0.24814008416744182),
        ("ＡＢＣ人", "abc人", 0.1739130434782609),
        ("ひらがなカタカナ", "ひらがな", 0.4741608956929397),
        ("한국어 사람", "한국어", 0.4712318754035105),
        ("é狗", "e狗", 0.2),
        ("(狗)", "狗", 0.36363636363636365),
        ("", "一个", 0.0),
        ("一个", "", 0.0),
        ("。", "。", 1.0),
    ],
)
def test_meteor_says_what_the_jar_says(caption, reference, score):
    stats = meteor.meteor_stats([caption], [[reference]])
    assert meteor.of_captions(stats) == pytest.approx([score], abs=1e-12)
    assert meteor.of_corpus(stats) == pytest.approx(score, abs=1e-12)


def test_words_of_each_tokenizer():
    text = " 一 只 iPhone 14 的 狗。"
    assert segment([text], "char") == [list("一只iPhone14的狗。")]
    assert segment([text], "words") == [["一", "只", "iPhone", "14", "的", "狗。"]]
    assert segment([text], "jieba") == [["一只", "iPhone", "14", "的", "狗", "。"]]
    assert segment(["", " 　"], "char") == segment(["", " 　"], "jieba") == [[], []]
    with pytest.raises(UsageError, match="choose of char, jieba, words"):
        segment([""], "letters")


def test_an_empty_caption_scores_nothing_and_is_counted():
    found = score_captions(["", "一只狗在跑", "　"], [["猫"], ["一只狗在跑"], ["鸟"]], bootstrap=0)
    assert found.empty == 2
    for name, values in found.images.items():
        assert values[0] == values[2] == pytest.approx(0), name
        assert values[1] > 0, name


def test_intervals_hold_the_value_and_are_the_seeds():
    _, rows, references = coco_cn.stored()
    captions = [row["captions"]["seqlearn"] for row in rows[:60]]
    first, again, other = (
        score_captions(captions, references[:60], tokenizers=("char",), bootstrap=50, seed=seed)
        for seed in (0, 0, 1)
    )
    assert first.ci95 == again.ci95 != other.ci95
    assert first.ci95.keys() == first.corpus.keys()
    for name, (low, high) in first.ci95.items():
        assert low < first.corpus[name] < high, name


def test_a_resample_is_the_set_with_captions_repeated():
    """The score of weights is that of captions standing so often, where the score has no document frequency."""
    _, rows, references = coco_cn.stored()
    captions, some = [row["captions"]["seqlearn"] for row in rows[:5]], references[:5]
    times = [0, 2, 1, 3, 0]
    many = [(c, r) for c, r, n in zip(captions, some, times, strict=True) for _ in range(n)]
    weights = np.array(times, dtype=float)
    counts = [
        bleu.counts(Corpus(segment(ours, "char"), [segment(texts, "char") for texts in theirs]))
        for ours, theirs in ((captions, some), zip(*many, strict=True))
    ]
    assert bleu.of_corpus(counts[0], weights) == pytest.approx(bleu.of_corpus(counts[1]))
    stats = [
        meteor.meteor_stats(ours, theirs)
        for ours, theirs in ((captions, some), tuple(zip(*many, strict=True)))
    ]
    assert meteor.of_corpus(stats[0], weights) == pytest.approx(meteor.of_corpus(stats[1]))


@pytest.mark.parametrize(
    ("captions", "options", "message"),
    [
        ([], {}, "no caption to score"),
        (["狗"], {"metrics": ("spice",)}, "no metric 'spice'"),
        (["狗"], {"tokenizers": ("ptb",)}, "no tokenizer 'ptb'"),
    ],
)
def test_what_cannot_be_scored_is_said(captions, options, message):
    with pytest.raises(UsageError, match=message):
        score_captions(captions, [["狗"]] * len(captions), **options)
