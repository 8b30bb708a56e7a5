"""`python -m tests.battery first`: the result of a battery, as printed in RESULTS.md."""

import sys
from collections import Counter

from tests.battery.case import cases_of, judged


def main(battery: str) -> None:
    """Print the totals, every wrong implementation that is not named, and every right one that is refused."""
    wrong, right = cases_of(battery, "wrong"), cases_of(battery, "right")
    checks = [case.run() for case in wrong]
    verdicts = [judged(check, case.words) for case, check in zip(wrong, checks, strict=True)]
    count = Counter(verdicts)
    refused = [(case, check) for case in right for check in [case.run()] if not check.passed]
    print(f"{len(wrong)} wrong implementations: {len(wrong) - count['passed']} caught, of which")
    print(f"{count['named']} named, {count['named wrongly']} named wrongly, {count['silent']} not named.")
    print(f"{len(right)} right implementations: {len(refused)} refused.\n")
    for kind in "passed", "named wrongly", "silent":
        print(f"{kind}:\n")
        for case, check, found in zip(wrong, checks, verdicts, strict=True):
            if found == kind:
                print(f"- {case.name}: {check.diagnosis}")
        print()
    print("refused:\n")
    for case, check in refused:
        print(f"- {case.name}: {check.diagnosis}")


if __name__ == "__main__":
    main(*sys.argv[1:])
