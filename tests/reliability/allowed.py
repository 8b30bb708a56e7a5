"""Values of `arguments` that a function accepts, each with the reason."""

import re

ALLOWED = []


def allowed(function, argument, what):
    """Whether the function may accept this value, or raise another error."""
    return any(
        re.fullmatch(f, function) and re.fullmatch(a, argument) and re.fullmatch(w, what) for f, a, w, _ in ALLOWED
    )
