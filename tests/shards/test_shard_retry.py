"""--retry-failed: rows whose images have come meanwhile, and a tree as if they had been there from the start."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shard_cases import make_rows, picture, shard, tree, vlcli

from vlcli.errors import InputError, UsageError
from vlcli.shards.check import check_directory
from vlcli.shards.layout import RETRIED
from vlcli.shards.reader import read_sidecar
from vlcli.shards.writer import CommittedShard, write_shard

MISSING = (1, 4, 5, 13)  # rows of shards 0, 1, 1 and 4, three to a shard
ROWS = 16


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Sixteen rows; of four the images have not come, or are damaged."""

    def absent(i: int, row: dict, file: Path) -> dict:
        if i == 5:
            file.write_bytes(b"<html>try again later</html>")
        elif i in MISSING:
            file.unlink()
        return {**row, "image_id": row["image"]} if i % 3 else row

    return make_rows(tmp_path, ROWS, change=absent)


@pytest.fixture
def out(tmp_path: Path, source: Path) -> Path:
    totals = shard(source, tmp_path / "out", per_shard=3, max_bad="4")
    assert (totals.rows, totals.samples) == (16, 12)
    return tmp_path / "out"


def arrive(source: Path, *numbers: int) -> None:
    for i in numbers:
        (source.parent / "pictures" / f"{i}.img").write_bytes(picture(i))


def times(directory: Path) -> dict[str, int]:
    return {p.name: p.stat().st_ino for p in directory.iterdir() if p.is_file() and p.name != "sizes.json"}


def retry(source: Path, out: Path, **options):
    return shard(source, out, per_shard=3, max_bad=options.pop("max_bad", "4"), retry=True, **options)


def test_as_if_all_had_been_there(tmp_path: Path, source: Path, out: Path) -> None:
    before, stood = tree(out), times(out)
    arrive(source, *MISSING)
    totals = retry(source, out)
    assert (totals.rows, totals.samples, totals.shards, totals.skipped) == (16, 16, 6, 3)
    shard(source, tmp_path / "whole", per_shard=3)
    assert tree(out) == tree(tmp_path / "whole")
    untouched = [name for name, inode in times(out).items() if stood[name] == inode]
    assert untouched == [name for name in stood if name[:5] in ("00002", "00003", "00005")]
    assert check_directory(out, deep=True).findings == []
    manifests = [(d / "_vlcli" / "manifest.jsonl").read_bytes() for d in (out, tmp_path / "whole")]
    assert manifests[0] == manifests[1]
    assert not (out / RETRIED).exists()
    assert before != tree(out)


def test_bit_by_bit(tmp_path: Path, source: Path, out: Path) -> None:
    """Some arrive, one is still away, one is damaged in another way: each time what a run would write now."""
    for step, (come, samples, skipped) in enumerate(
        [((), 12, 6), ((4,), 13, 5), ((5, 13), 15, 4), ((1,), 16, 5)]
    ):
        arrive(source, *come)
        totals = retry(source, out)
        assert (totals.samples, totals.skipped) == (samples, skipped)
        shard(source, tmp_path / f"{step}", per_shard=3, max_bad="4")
        assert tree(out) == tree(tmp_path / f"{step}")
    (source.parent / "pictures" / "13.img").unlink()
    assert retry(source, out).skipped == 6  # a row that succeeded is not asked for again
    assert tree(out) == tree(tmp_path / "3")


def test_another_failure_is_recorded_too(tmp_path: Path, source: Path, out: Path) -> None:
    (source.parent / "pictures" / "1.img").write_bytes(picture(1)[:-30])
    assert retry(source, out).skipped == 5
    shard(source, tmp_path / "whole", per_shard=3, max_bad="4")
    assert tree(out) == tree(tmp_path / "whole")
    row = read_sidecar(out / "00000.parquet").to_pylist()[1]
    assert row["status"] == "failed_to_resize"
    assert "damaged png" in row["error_message"]


def test_the_images_that_were_packed_need_not_be_there_any_more(
    tmp_path: Path, source: Path, out: Path
) -> None:
    arrive(source, *MISSING)
    shard(source, tmp_path / "whole", per_shard=3)
    for i in set(range(ROWS)) - set(MISSING):
        (source.parent / "pictures" / f"{i}.img").unlink()
    assert retry(source, out, max_bad="0").samples == 16
    assert tree(out) == tree(tmp_path / "whole")


def test_a_shard_of_which_nothing_could_be_had(tmp_path: Path) -> None:
    def absent(i: int, row: dict, file: Path) -> dict:
        file.unlink()
        return row

    source = make_rows(tmp_path, 4, change=absent)
    shard(source, tmp_path / "out", per_shard=2, max_bad="4")
    arrive(source, *range(4))
    retry_ = shard(source, tmp_path / "out", per_shard=2, retry=True)
    assert (retry_.samples, retry_.skipped) == (4, 0)
    shard(source, tmp_path / "whole", per_shard=2)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_the_format_stays(tmp_path: Path) -> None:
    def absent(i: int, row: dict, file: Path) -> dict:
        if i == 0:
            file.unlink()
        return row

    source = make_rows(tmp_path, 3, change=absent)
    shard(source, tmp_path / "out", max_bad="1")
    (source.parent / "pictures" / "0.img").write_bytes(picture(0, "WEBP"))
    assert shard(source, tmp_path / "out", retry=True).extension == "png"
    assert check_directory(tmp_path / "out", deep=True).findings == []


def test_still_too_many_bad(source: Path, out: Path) -> None:
    before = tree(out)
    arrive(source, 13)
    with pytest.raises(InputError, match="bad row 3; --max-bad is 2"):
        retry(source, out, max_bad="2")
    assert tree(out) == before


def test_other_rows_are_refused(source: Path, out: Path) -> None:
    before = tree(out)
    arrive(source, *MISSING)
    lines = [json.loads(line) for line in source.read_bytes().splitlines()]
    for changed, message in (
        ([*lines[:2], {**lines[2], "score": 7}, *lines[3:]], "shard 00000: its rows changed"),
        ([*lines[:14], {**lines[14], "score": 7}, lines[15]], "shard 00004: its rows changed"),
        ([*lines, lines[0]], "shard 00005: "),
        (lines[:-2], "shard 00004: 3 rows then, 2 now"),
    ):
        source.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in changed))
        copy = out.with_name("copy")
        shutil.copytree(out, copy)
        with pytest.raises(UsageError, match=message):
            retry(source, copy)
        assert tree(copy)["00005.tar"] == before["00005.tar"]
        shutil.rmtree(copy)
    assert tree(out) == before


def test_a_shard_that_is_damaged_is_not_copied_from(source: Path, out: Path) -> None:
    tar = out / "00001.tar"
    data = bytearray(tar.read_bytes())
    data[0] ^= 1
    tar.write_bytes(data)
    arrive(source, *MISSING)
    with pytest.raises(InputError, match=r"00001\.tar: .*vlcli check"):
        retry(source, out)


@pytest.mark.parametrize("moved", [0, 1, 2, 3])
def test_stopped_between_the_renames(tmp_path: Path, source: Path, out: Path, moved: int) -> None:
    """Three files cannot be renamed at once; whatever run comes next goes on with it."""
    import vlcli.shards.output as module

    arrive(source, *MISSING)
    shard(source, tmp_path / "whole", per_shard=3)
    real, calls = module.os.replace, []

    class Stopped(BaseException):
        pass

    def replace(old, new) -> None:
        if Path(new).parent == out and Path(old).parent == out / RETRIED:
            calls.append(new)
            if len(calls) > moved:
                raise Stopped
        real(old, new)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module.os, "replace", replace)
        with pytest.raises(Stopped):
            retry(source, out)
    assert "sizes.json" not in tree(out)
    other = tmp_path / "other"
    shutil.copytree(out, other)
    retry(source, out)
    assert tree(out) == tree(tmp_path / "whole")
    # Without --retry-failed, too: the shard at hand is finished, the others stay as they are.
    assert shard(source, other, per_shard=3, max_bad="4").samples == 13 + (moved == 3) * 2
    assert check_directory(other, deep=True).findings == []
    for name in ("00000.tar", "00000.parquet", "00000_stats.json"):
        assert (other / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_killed_again_and_again(tmp_path: Path) -> None:
    def absent(i: int, row: dict, file: Path) -> dict:
        if i % 7 == 3:
            file.unlink()
        return row

    source = make_rows(tmp_path, 90, change=absent)
    shard(source, tmp_path / "out", per_shard=6, max_bad="20")
    arrive(source, *range(3, 90, 7))
    shard(source, tmp_path / "whole", per_shard=6)
    program = [sys.executable, Path(__file__).with_name("killed_retry.py")]
    done = subprocess.run(
        [*program, source, tmp_path / "out", tmp_path / "whole", "8"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    replaced = [int(n) for n in done.stdout.split()]
    assert len(replaced) == 8
    assert max(replaced) > 0


def test_command(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrive(source, 1, 4)
    command = ["shard", str(source), "-o", str(out), "--per-shard", "3", "--max-bad", "4", "--retry-failed"]
    vlcli(*command, "--dry-run")
    assert "4 failed rows in them would be tried again" in capsys.readouterr().out
    vlcli(*command)
    said = capsys.readouterr().err
    assert "6 shards stand already, and are compared and their failed rows tried again" in said
    assert "16 rows = 14 samples + 2 failed, 6 shards" in said
    assert "(4 shards stood already)" in said
    with pytest.raises(UsageError, match="--force and --retry-failed exclude each other"):
        vlcli(*command, "--force")


def test_nothing_is_renamed_before_the_new_shard_is_whole(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(out)
    arrive(source, *MISSING)

    def full(*arguments) -> CommittedShard:
        write_shard(*arguments)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vlcli.shards.dataset.write_shard", full)
    with pytest.raises(OSError, match="No space left"):
        retry(source, out)
    monkeypatch.undo()
    assert tree(out) == before
    assert check_directory(out).findings == []
    assert retry(source, out).samples == 16
