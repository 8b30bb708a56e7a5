"""Run every adapter whose framework is installed and print, or write, one table.

    python -m benchmarks.conformance [NAME ...] [--json FILE] [--markdown FILE]

The exit status is 1 if a check fails without a documented cause, or passes although a failure is documented.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import warnings
from pathlib import Path

from benchmarks.conformance import Finding
from benchmarks.markdown import replace_table

os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars of samplers
ADAPTERS = {
    "diffusers": ("diffusers_", ("diffusers", "torch")),
    "sklearn": ("sklearn_", ("scikit-learn",)),
    "torch": ("torch_", ("torch",)),
    "azula": ("azula_", ("azula", "torch")),
    "denoising-diffusion": ("denoising_diffusion_", ("denoising-diffusion-pytorch", "torch")),
    "hmmlearn": ("hmmlearn_", ("hmmlearn",)),
    "k-diffusion": ("k_diffusion_", ("k-diffusion", "torch")),
    "numpyro": ("numpyro_", ("numpyro", "jax")),
    "pomegranate": ("pomegranate_", ("pomegranate", "torch")),
    "pyro": ("pyro_", ("pyro-ppl", "torch")),
    "pythae": ("pythae_", ("pythae", "torch")),
    "torchcfm": ("torchcfm_", ("torchcfm", "torch")),
    "torchsde": ("torchsde_", ("torchsde", "torch")),
}


def version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def run(names: list[str]) -> tuple[list[Finding], dict[str, str]]:
    """Findings of the named adapters, and the versions of their frameworks."""
    findings: list[Finding] = []
    versions = {"python": platform.python_version(), "numpy": version("numpy"), "scratchgen": version("scratchgen")}
    for name in names:
        module, needed = ADAPTERS[name]
        found = {distribution: version(distribution) for distribution in needed}
        missing = [distribution for distribution, number in found.items() if number is None]
        if missing:
            print(f"{name}: skipped, {' and '.join(missing)} not installed", file=sys.stderr)
            continue
        versions |= found
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the frameworks' deprecations and convergence warnings
            findings += importlib.import_module(f"benchmarks.conformance.{module}").findings()
    return findings, {key: str(number) for key, number in versions.items()}


HEADER = ("framework", "object", "check", "compares", "residual", "tolerance", "verdict", "what a failure means")


def row(finding: Finding) -> tuple[str, ...]:
    check = finding.check
    tolerance = f"{finding.judged_at:.0e}"
    return (
        finding.framework,
        finding.what,
        check.name,
        f"{check.quantity.rstrip(',')} {check.equation}".strip(),
        "not finite" if check.residual == float("inf") else f"{check.residual:.1e}",
        tolerance if finding.tolerance is None else f"{tolerance} (32-bit)",
        finding.verdict,
        "" if finding.passed else finding.cause,
    )


def summary(findings: list[Finding]) -> str:
    passed = sum(finding.passed for finding in findings)
    return f"{len(findings)} checks: {passed} pass, {len(findings) - passed} fail"


def as_markdown(findings: list[Finding], versions: dict[str, str]) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join(
        [
            ", ".join(f"{name} {number}" for name, number in versions.items()) + f".  {summary(findings)}.",
            "",
            line(HEADER),
            line(("---",) * len(HEADER)),
            *(line(row(finding)) for finding in findings),
        ]
    )


def as_json(findings: list[Finding], versions: dict[str, str]) -> str:
    rows = [
        {
            "framework": finding.framework,
            "object": finding.what,
            "check": finding.check.name,
            "equation": finding.check.equation,
            "compares": finding.check.quantity,
            "residual": finding.check.residual if finding.check.residual < float("inf") else None,
            "tolerance": finding.judged_at,
            "passed": finding.passed,
            "diagnosis": finding.check.diagnosis,
            "cause": finding.cause,
        }
        for finding in findings
    ]
    return json.dumps({"versions": versions, "findings": rows}, indent=1, ensure_ascii=False)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conformance", description=__doc__.splitlines()[0])
    parser.add_argument("frameworks", nargs="*", help=f"any of {', '.join(ADAPTERS)}; default all")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="replaces the table in FILE, keeps the rest")
    options = parser.parse_args()
    unknown = set(options.frameworks) - set(ADAPTERS)
    if unknown:
        parser.error(f"frameworks must be among {', '.join(ADAPTERS)}, got {', '.join(sorted(unknown))}")
    findings, versions = run(options.frameworks or list(ADAPTERS))
    for finding in findings:
        framework, what, check, compares, residual, tolerance, verdict, _ = row(finding)
        print(f"{framework:<13} {what:<62} {check:<34} {residual:>10} {tolerance:>14}  {verdict}")
        if not finding.passed:
            print(f"    {compares}: {finding.cause or '(no documented cause)'}\n    found: {finding.check.diagnosis}")
    print(f"\n{summary(findings)}; " + ", ".join(f"{name} {number}" for name, number in versions.items()))
    if options.json:
        options.json.write_text(as_json(findings, versions) + "\n", encoding="utf-8")
    if options.markdown:
        replace_table(options.markdown, as_markdown(findings, versions))
    return int(any(finding.surprising for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
