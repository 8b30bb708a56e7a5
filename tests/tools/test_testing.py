"""`scratchgen.testing`: the strategies refuse what they cannot draw."""

import pytest

from scratchgen.testing import em_problems, schedules


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (lambda: em_problems(modes=("plain", "foo")).example(), "modes must be among"),
        (lambda: schedules(0.5, 0.1).example(), "low and high must satisfy"),
        (lambda: schedules(0.0, 0.5).example(), "low and high must satisfy"),
        (lambda: schedules(0.1, 1.0).example(), "low and high must satisfy"),
    ],
)
@pytest.mark.filterwarnings("ignore:The `.example")
def test_strategies_refuse_what_they_cannot_draw(strategy, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        strategy()
