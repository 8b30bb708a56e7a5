"""Tests against other libraries: collected only where the library is installed (`pip install --group oracles`)."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("sklearn") else ["test_sklearn*.py"]
