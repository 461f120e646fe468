"""metrics.jsonl, TensorBoard and W&B: what they hold after a resumption, and what happens when they cannot be."""

import struct
import time

import orjson
import pytest
from accelerate import PartialState

from vlcli.errors import UsageError
from vlcli.training.trackers import Trackers, chosen

BLOCK, HEADER = 32768, 7  # of the log format that W&B keeps its records in, and of each piece in it


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path))
    PartialState(cpu=True)  # as a run has it
    run = tmp_path / "run"
    run.mkdir()
    return run


def history(run):
    """Step → {name: value} of the one W&B run in a directory."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    data, place, whole, found = file.read_bytes(), HEADER, b"", {}
    while place < len(data):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + HEADER])
        whole += data[place + HEADER : place + HEADER + size]
        place += HEADER + size
        if kind in (1, 4):  # a record in one piece, or the last piece of one
            record = Record.FromString(whole)
            whole = b""
            if record.WhichOneof("record_type") == "history":
                items = {
                    item.key or "/".join(item.nested_key): orjson.loads(item.value_json)
                    for item in record.history.item
                }
                items = {name: value for name, value in items.items() if not name.startswith("_")}
                found.setdefault(record.history.step.num, {}).update(items)
    return found


def assert_history(run, want):
    """W&B's own process ends the file in its time, a little after `finish` has returned."""
    until = time.monotonic() + 20
    while history(run) != want and time.monotonic() < until:
        time.sleep(0.05)
    assert history(run) == want


def test_wandb_without_a_network_holds_each_step_once_after_a_resumption(offline):
    first = Trackers(offline, ("wandb",), recipe={"name": "tiny"})
    for step in range(1, 5):
        first.log(step, {"loss": 1.0 / step})
    first.log(4, {"val": {"i2t": {"R@1": 50.0}}})
    first.close()
    name = (offline / "wandb" / "id").read_text()
    again = Trackers(offline, ("wandb",), resume_step=2, recipe={"name": "tiny"})
    for step in (3, 4, 5):
        again.log(step, {"loss": 10.0 / step})
    again.close()
    assert (offline / "wandb" / "id").read_text() == name, "the server replaces the run by its new telling"
    told = {1: {"loss": 1.0, "step": 1.0}, 2: {"loss": 0.5, "step": 2.0}}
    assert_history(offline, told | {step: {"loss": 10.0 / step} for step in (3, 4, 5)})
    lines = [orjson.loads(line) for line in (offline / "metrics.jsonl").read_bytes().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]


def test_a_server_that_does_not_answer_costs_a_warning_and_not_the_run(offline, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "online")
    inner, modes = wandb.init, []

    def init(**how):
        modes.append(how["mode"])
        if how["mode"] == "online":
            raise wandb.errors.CommError("no route to host")
        return inner(**how)

    monkeypatch.setattr(wandb, "init", init)
    said = []
    trackers = Trackers(offline, ("wandb",), warn=said.append)
    trackers.log(1, {"loss": 2.0})
    trackers.close()
    assert modes == ["online", "offline"]
    assert len(said) == 1
    assert "no route to host" in said[0]
    assert_history(offline, {1: {"loss": 2.0}})


def test_a_tracker_that_is_asked_for_must_be_installed(monkeypatch):
    here = {"tensorboard"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in here else None)
    assert chosen(None) == ("tensorboard",)
    assert chosen(()) == ()
    assert chosen(("tensorboard", "tensorboard")) == ("tensorboard",)
    with pytest.raises(UsageError, match=r"wandb is not installed; pip install 'vlcli\[wandb\]'") as caught:
        chosen(("tensorboard", "wandb"))
    assert caught.value.exit_code == 2
    here.clear()
    assert chosen(None) == ()


def test_without_trackers_there_is_the_file_alone(tmp_path):
    trackers = Trackers(tmp_path)
    trackers.log(1, {"loss": 2.0, "val": {"MR": 3.0}})
    trackers.flush()
    trackers.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
    (line,) = (tmp_path / "metrics.jsonl").read_bytes().splitlines()
    assert orjson.loads(line) == {"step": 1, "loss": 2.0, "val": {"MR": 3.0}}
