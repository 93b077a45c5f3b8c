"""Where the tests find data, and the settings every test runs under."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("default", deadline=None, derandomize=True)
settings.load_profile("default")


def folder_of(variable: str) -> Path:
    """The folder that an environment variable names; a test that needs it is skipped, with the reason, where there is none."""
    folder = os.environ.get(variable)
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{variable} names no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real data sets: MNIST/raw, cifar5m, …"""
    return folder_of("FEATSCALE_DATA")


@pytest.fixture(scope="session")
def reference_folder() -> Path:
    """Reference numbers that others computed."""
    return folder_of("FEATSCALE_REFERENCE")
