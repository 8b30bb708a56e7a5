"""Every adapter of `benchmarks/conformance`: no check fails without a written cause, or passes against one."""

import importlib

import pytest

from benchmarks.conformance.__main__ import ADAPTERS, version

INSTALLED = [
    name
    for name, (_, needed) in ADAPTERS.items()
    if name not in ("diffusers", "sklearn", "torch") and all(version(distribution) for distribution in needed)
]


@pytest.mark.filterwarnings("ignore")
def test_the_verdicts_are_the_written_ones():
    for name in INSTALLED:
        findings = list(importlib.import_module(f"benchmarks.conformance.{ADAPTERS[name][0]}").findings())
        assert {(finding.what, finding.verdict) for finding in findings if finding.surprising} == set(), name
        assert any(finding.passed for finding in findings), name
