"""What the tests of training share."""

import pytest

from tests.training.runs import load_dataset


@pytest.fixture(scope="module")
def dataset():
    return load_dataset()
