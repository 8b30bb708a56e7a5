"""One line about the machine of a measurement."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

KERNELS = (
    "OPENBLAS_CORETYPE",
    "NPY_DISABLE_CPU_FEATURES",
    "ATEN_CPU_CAPABILITY",
    "MKL_ENABLE_INSTRUCTIONS",
    "XLA_FLAGS",
)


def machine(libraries: Sequence[str]) -> tuple[str, str]:
    """Processor with its instruction sets, and the versions of Python and of libraries."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    found = []
    for library in libraries:
        try:
            found.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            found.append(f"{library} missing")
    held = [f"{name}={os.environ[name]}" for name in KERNELS if name in os.environ]
    found += [f"held by the environment: {', '.join(held)}"] if held else []
    return f"{processor}, {kernels()}", f"Python {platform.python_version()}, {', '.join(found)}"


def kernels() -> str:
    """The instruction sets of NumPy and of its BLAS; processors with the same sets have similar ratios."""
    import numpy as np
    from threadpoolctl import threadpool_info

    simd = np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    blas = [f"{pool['internal_api']} for {pool.get('architecture')}" for pool in pools]
    return f"NumPy with {', '.join(simd) or 'no SIMD'}, {blas[0] if blas else 'unknown BLAS'}"
