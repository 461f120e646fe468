"""MarianMT and mBART models of random weights with tokenizers learnt from the corpus, saved as transformers saves."""

import json
from functools import lru_cache
from pathlib import Path

import polars as pl
import sentencepiece
import torch
from transformers import (
    MarianConfig,
    MarianMTModel,
    MarianTokenizer,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
)

RAW = Path(__file__).parents[2] / "examples/emoji/raw.parquet"
SIZES = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 32,
    "scale_embedding": True,
    "init_std": 0.5,  # logits far apart: the order of a sum decides nothing
}


def pieces(folder: Path) -> Path:
    """A SentencePiece model of names in three languages."""
    file = folder / "pieces.model"
    if not file.exists():
        names = pl.read_parquet(RAW, columns=["name_en", "name_ru", "name_fr"])
        texts = sorted({text for column in names for text in column.drop_nulls()})
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_prefix=str(file.with_suffix("")),
            vocab_size=500,
            character_coverage=1.0,
            minloglevel=2,
        )
    return file


def save(model, tokenizer, folder: Path) -> Path:
    """With a search of two beams and eight tokens, as the checkpoint's own wish."""
    model.generation_config.max_length = 8
    model.generation_config.num_beams = 2
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def marian(root: Path, name: str, seed: int, codes: tuple[str, ...] = ()) -> Path:
    """`codes`: what its target languages are called, as in `>>de<<`."""
    model = pieces(root)
    spm = sentencepiece.SentencePieceProcessor(model_file=str(model))
    learnt = [spm.id_to_piece(i) for i in range(spm.get_piece_size())]
    order = ["</s>", "<unk>", *codes, *(p for p in learnt if p not in ("<s>", "</s>", "<unk>")), "<pad>"]
    vocabulary = root / "vocabulary.json"
    vocabulary.write_text(json.dumps({piece: number for number, piece in enumerate(order)}))
    tokenizer = MarianTokenizer(str(model), str(model), str(vocabulary), model_max_length=32)
    pad = len(order) - 1
    config = MarianConfig(
        vocab_size=len(order),
        pad_token_id=pad,
        decoder_start_token_id=pad,
        eos_token_id=0,
        forced_eos_token_id=0,
        bad_words_ids=[[pad]],
        **SIZES,
    )
    torch.manual_seed(seed)
    return save(MarianMTModel(config), tokenizer, root / name)


def mbart(root: Path, name: str, seed: int) -> Path:
    """mBART-50, or mBART where the name says so."""
    spm = sentencepiece.SentencePieceProcessor(model_file=str(pieces(root)))
    vocabulary = [(spm.id_to_piece(i), spm.get_score(i)) for i in range(spm.get_piece_size())]
    tokenizer = (MBart50Tokenizer if "50" in name else MBartTokenizer)(vocab=vocabulary)
    torch.manual_seed(seed)
    model = MBartForConditionalGeneration(MBartConfig(vocab_size=len(tokenizer), **SIZES))
    return save(model, tokenizer, root / name)


@lru_cache
def reference(folder: Path):
    """The model and tokenizer as transformers' own classes read them."""
    if (folder / "source.spm").exists():
        return MarianMTModel.from_pretrained(folder), MarianTokenizer.from_pretrained(folder)
    kind = MBart50Tokenizer if "50" in folder.name else MBartTokenizer
    return MBartForConditionalGeneration.from_pretrained(folder), kind.from_pretrained(folder)


def translated_alone(folder: Path, text: str, source: str, target: str, **options) -> str:
    """One text by transformers' own generate, as its documentation says for each kind; codes in full."""
    model, tokenizer = reference(folder)
    if isinstance(model, MarianMTModel):
        if tokenizer.supported_language_codes:
            text = f">>{target}<< {text}"
    else:
        tokenizer.src_lang = source
        said = "forced_bos_token_id" if "50" in folder.name else "decoder_start_token_id"
        options[said] = tokenizer.convert_tokens_to_ids(target)
    given = tokenizer(text, return_tensors="pt")
    return tokenizer.decode(model.generate(**given, **options)[0], skip_special_tokens=True).strip()
