"""Tests against other libraries, collected only if the library is installed (`pip install --group oracles`)."""

from importlib.util import find_spec

import pytest

NEEDS = {
    "test_sklearn*.py": ["sklearn"],
    "test_torch*.py": ["torch"],
    "test_jax*.py": ["jax"],
    "test_diffusers*.py": ["torch", "diffusers"],
    "test_pandas*.py": ["pandas", "sklearn"],
    "test_polars*.py": ["polars"],
    "test_pot*.py": ["ot"],
}
collect_ignore_glob = [glob for glob, libraries in NEEDS.items() if not all(map(find_spec, libraries))]


@pytest.fixture(scope="module")
def one_torch_thread():
    """One thread for torch within a module of tests."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
