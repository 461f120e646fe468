"""Words back into a text: spaces between Latin words alone, signs where they stand, and ids that come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from vlcli.text.model_tokenizers import Pipeline
from vlcli.text.spacing import joined, without_foreign_spaces
from vlcli.text.wordpiece import WordPiece

CASES = [
    ("一 只 狐 狸", "一只狐狸"),
    ("new york", "new york"),
    ("一 台 iphone 手 机", "一台iphone手机"),
    ("一 台 iphone 15 pro 手 机 ，", "一台iphone 15 pro手机，"),
    ("a dog , a cat .", "a dog, a cat."),
    ("it ' s a t - shirt ( red )", "it's a t-shirt (red)"),
    ("3 . 5 米", "3.5米"),
    ("ひ ら がな と カタ カナ", "ひらがなとカタカナ"),
    ("한국어 문장", "한국어 문장"),
    ("una foto di 5 : 30", "una foto di 5:30"),
    ("", ""),
]


@pytest.mark.parametrize(("words", "text"), CASES)
def test_spaces_stand_where_the_script_has_them(words: str, text: str) -> None:
    assert joined(words.split()) == text


def test_a_finished_text_loses_foreign_spaces_alone() -> None:
    assert without_foreign_spaces(" 一 只 red fox , 狐狸 ") == "一只red fox ,狐狸"


WORDPIECE = WordPiece.load()
WORDS = st.lists(
    st.sampled_from(["狐", "狸", "，", "。", "playing", "York", "15", "3", "(", ")", "苹果", ".", "t"])
)


@given(WORDS)
def test_a_text_from_its_ids_has_the_same_ids(words: list[str]) -> None:
    ids = WORDPIECE.content(" ".join(words))
    assert WORDPIECE.content(WORDPIECE.text(ids)) == ids


def test_pieces_of_a_word_come_together_and_special_tokens_go() -> None:
    ids = WORDPIECE.encode(["Tokenization 一只"], 20)[0][0].tolist()
    assert any(piece.startswith("##") for piece in WORDPIECE.tokens(ids))
    assert WORDPIECE.text([*ids, WORDPIECE.pad_id]) == "tokenization一只"
    assert {
        WORDPIECE.unk_id,
        WORDPIECE.mask_id,
        WORDPIECE.cls_id,
        WORDPIECE.pad_id,
    } == WORDPIECE.unwritten_ids


def test_a_pipeline_writes_texts_too() -> None:
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁red", "▁fox", "▁狐", "狸"]
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    pipeline = Pipeline(tokenizer, padding_id=1)
    assert pipeline.text([0, 4, 5, 6, 7, 2, 1]) == "red fox狐狸"
    assert pipeline.unwritten_ids == {0, 1, 3}
