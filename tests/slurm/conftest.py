"""The Slurm of one node that these tests share."""

from collections.abc import Iterator

import cluster as module
import pytest


@pytest.fixture(scope="session")
def cluster() -> Iterator[module.Cluster]:
    """A running cluster of four processors; the test is skipped, with the reason, where none can be started."""
    if reason := module.missing():
        pytest.skip(reason)
    with module.Cluster() as running:
        yield running
