"""Every adapter of `benchmarks/conformance`: no check fails without a written cause, or passes against one."""

import importlib

import pytest

from benchmarks.conformance.__main__ import ADAPTERS, version

NEW = [name for name in ADAPTERS if name not in ("diffusers", "sklearn", "torch")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NEW)
def test_the_verdicts_are_the_written_ones(name):
    module, needed = ADAPTERS[name]
    missing = [distribution for distribution in needed if version(distribution) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed")
    findings = list(importlib.import_module(f"benchmarks.conformance.{module}").findings())
    assert {(finding.what, finding.verdict) for finding in findings if finding.surprising} == set()
    assert any(finding.passed for finding in findings)
