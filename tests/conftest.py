"""What holds for all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import warm
from hypothesis import settings

settings.register_profile("unhurried", deadline=None)  # machines are as busy as they are
settings.load_profile("unhurried")


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is kept in the cache of whoever runs the tests, nor read from it."""
    os.environ["VLCLI_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for PATH with a `vlcli` that starts at once: a process that has its libraries forks for each of them."""
    yield from _warm(tmp_path_factory.mktemp("bin"))


@pytest.fixture(scope="session")
def programs_of_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same, torch among its libraries."""
    yield from _warm(tmp_path_factory.mktemp("bin"), "models")


def _warm(folder: Path, *more: str) -> Iterator[Path]:
    warm.install(folder, folder / "socket")
    command = [sys.executable, warm.__file__, str(folder / "socket"), *more]
    root = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield folder
        server.kill()
