"""Hypothesis profiles, chosen by the environment variable HYPOTHESIS_PROFILE.

- `ci`, the default: the same 25 examples every time, so that a red run is never chance;
- `explore`: 300 fresh examples, for looking further by hand or nightly;
- `mutation`: few examples and no shrinking, for runs on broken code, where only red or green counts.
"""

import os

from hypothesis import Phase, settings

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=25)
settings.register_profile("explore", deadline=None, max_examples=300, print_blob=True)
ci = settings.get_profile("ci")
settings.register_profile("mutation", ci, max_examples=20, phases=[Phase.generate])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
