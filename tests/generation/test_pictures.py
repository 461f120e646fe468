"""Generated pictures: noise by key, levels of pixels, what a PNG says, and rows that are pairs again."""

import json

import pytest
import torch
from PIL import Image

from vlcli.errors import UsageError
from vlcli.generation.pictures import album, noise_of, to_pictures
from vlcli.generation.rows import generated_by
from vlcli.shards.pairs import load_pairs


def test_noise_is_of_seed_and_key_alone():
    both = noise_of(3, ["a", 7], (2, 4))
    assert both.shape == (2, 2, 4)
    assert torch.equal(both[1], noise_of(3, [7], (2, 4))[0])
    assert torch.equal(both[0], noise_of(3, [7, "b", "a"], (2, 4))[2])
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(both[0], noise_of(4, ["a"], (2, 4))[0])
    assert noise_of(0, [], (2,)).shape == (0, 2)
    many = noise_of(0, range(500), (8,))
    assert (abs(many.mean()) < 0.05, abs(many.std() - 1) < 0.05) == (True, True)
    state = torch.get_rng_state()
    noise_of(1, ["x"], (3,))
    assert torch.equal(state, torch.get_rng_state()), "nobody else's chance is touched"


def test_pixels_become_levels():
    values = torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0])
    (picture,) = to_pictures(values.expand(1, 3, 1, 5))
    assert picture.mode == "RGB"
    assert [picture.getpixel((x, 0))[1] for x in range(5)] == [0, 0, 128, 255, 255]
    (colour,) = to_pictures(torch.tensor([1.0, -1.0, 0.0]).reshape(1, 3, 1, 1))
    assert colour.getpixel((0, 0)) == (255, 0, 128)


ORIGIN = generated_by({"decoder": "d" * 16, "clip": "c" * 16}, seed=7, steps=5, guidance=2.5, languages=None)


def test_a_picture_says_what_it_was_made_of(tmp_path):
    with album(tmp_path / "out") as pages:
        name = pages.add(
            Image.new("RGB", (4, 6), "red"), "红苹果，“大”", ORIGIN, name="row/1", columns={"label": 3}
        )
    picture = Image.open(tmp_path / "out" / name)
    picture.load()
    said = picture.text
    assert said["prompt"] == "红苹果，“大”"
    assert (said["seed"], said["steps"], said["guidance"]) == ("7", "5", "2.5")
    assert (said["decoder"], said["clip"]) == ("d" * 16, "c" * 16)
    assert said["Software"].startswith("vlcli ")
    (line,) = (tmp_path / "out" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {
        "label": 3,
        "id": "row/1",
        "image": name,
        "text": "红苹果，“大”",
        "width": 4,
        "height": 6,
        "generated_by": ORIGIN,
    }
    assert "languages" not in ORIGIN


def test_what_comes_out_is_pairs(tmp_path):
    with album(tmp_path / "out") as pages:
        for number, colour in enumerate(("red", "blue")):
            pages.add(Image.new("RGB", (8, 8), colour), colour, ORIGIN, name=f"text/{number}")
    table = load_pairs([str(tmp_path / "out" / "pairs.jsonl")], columns=["generated_by"])
    assert list(table.ids) == ["text/0", "text/1"]
    assert list(table.texts) == [["red"], ["blue"]]
    assert table.image_bytes(1).startswith(b"\x89PNG")
    assert table.frame["generated_by"][0]["seed"] == 7


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    def stopped():
        with album(tmp_path / "out") as pages:
            pages.add(Image.new("RGB", (4, 4)), "a", ORIGIN, name="a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stopped()
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists"), album(tmp_path / "out"):
        pass
    with album(tmp_path / "out", force=True) as pages:
        pages.add(Image.new("RGB", (4, 4)), "a", ORIGIN, name="a")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["000000.png", "pairs.jsonl"]


def test_equal_pictures_are_equal_bytes(tmp_path):
    for name in ("a", "b"):
        with album(tmp_path / name) as pages:
            pages.add(Image.new("RGB", (9, 9), "green"), "绿", ORIGIN, name="x")
    for file in ("000000.png", "pairs.jsonl"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
