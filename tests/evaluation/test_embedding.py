import pytest
import torch
from tiny_models import COLOURS, square, table, tiny

from vlcli.errors import InputError, UsageError
from vlcli.evaluation import embed
from vlcli.evaluation.embed import embed_images, embed_texts, similarity_of
from vlcli.images.decode import decode

PICTURES = [square(colour) for colour in COLOURS.values()]


@pytest.mark.parametrize("kind", ["global", "tokenwise"])
@torch.no_grad()
def test_batches_equal_one_at_a_time(kind):
    model = tiny(kind)
    images = embed_images(model, PICTURES, batch_size=4)
    texts = embed_texts(model, ["红色", "一只很大的狐狸", "天"], batch_size=2)
    for i, data in enumerate(PICTURES):
        alone = model.encode_image(model.preprocess(decode(data))[None])
        for part, other in zip(images, alone, strict=True):
            assert part is None or torch.allclose(part[i], other[0], atol=1e-5)
    together = similarity_of(model)(images, texts)
    for j, text in enumerate(["红色", "一只很大的狐狸", "天"]):
        alone = model.similarity(images, model.encode_text(*model.tokenize([text])))
        assert torch.allclose(together.i2t[:, j], alone.i2t[:, 0], atol=1e-5)
        assert torch.allclose(together.t2i[:, j], alone.t2i[:, 0], atol=1e-5)


def test_large_features_live_in_a_file_and_say_the_same(monkeypatch):
    usual = embed_images(tiny(), PICTURES, batch_size=4)
    monkeypatch.setattr(embed, "SPOOL_ABOVE", 10)
    spooled = embed_images(tiny(), PICTURES, batch_size=4)
    assert torch.equal(usual.tokens, spooled.tokens)
    assert torch.equal(spooled.rows(slice(2, 4)).tokens, usual.tokens[2:4])


def test_progress_counts_every_row_once():
    seen = []
    embed_images(tiny(), PICTURES, batch_size=4, progress=seen.append)
    assert seen == [4, 2]


def test_a_damaged_picture_is_named_by_its_row():
    rows = table()
    rows.pictures[3] = rows.pictures[3][:60]
    with pytest.raises(InputError, match=r"squares.jsonl: image of square/3: "):
        embed_images(tiny(), rows)


def test_bf16_is_near_and_another_precision_is_refused():
    usual, short = (embed_images(tiny(), PICTURES, precision=p) for p in ("fp32", "bf16"))
    assert short.tokens.dtype == torch.float32
    assert torch.allclose(usual.tokens, short.tokens, atol=0.1)
    with pytest.raises(UsageError, match="fp8"):
        embed_images(tiny(), PICTURES, precision="fp8")


def test_no_rows_are_an_error():
    with pytest.raises(InputError, match="no rows"):
        embed_images(tiny(), [])
