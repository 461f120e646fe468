"""What the tests of training share: a few drawings, and a cache for the features of each file's runs."""

import pytest
from training_cases import pairs


@pytest.fixture(scope="module")
def table():
    return pairs()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")
