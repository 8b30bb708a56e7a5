"""Tests against other libraries, collected only if the library is installed (`pip install --group oracles`)."""

from importlib.util import find_spec

NEEDS = {
    "test_sklearn*.py": ["sklearn"],
    "test_torch*.py": ["torch"],
    "test_jax*.py": ["jax"],
    "test_diffusers*.py": ["torch", "diffusers"],
    "test_pandas*.py": ["pandas", "sklearn"],
    "test_polars*.py": ["polars"],
}
collect_ignore_glob = [glob for glob, libraries in NEEDS.items() if not all(map(find_spec, libraries))]
