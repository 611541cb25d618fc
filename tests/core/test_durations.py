import datetime

import pytest

from ssldiff_jax.core import durations


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "00:00:00"),
        (0.6, "00:00:01"),
        (86_399, "23:59:59"),
        (86_399.6, "1 d 00:00:00"),
        (17 * 86_400 + 8 * 3600 + 47 * 60 + 56, "17 d 08:47:56"),
        (416 * 86_400 + 20 * 3600 + 47 * 60 + 56, "416 d 20:47:56"),
    ],
)
def test_days_are_shown_from_24_hours_on(seconds, text):
    assert durations.clock(seconds) == text


def test_durations_are_those_of_the_standard_library():
    for seconds in range(7, 10_000_000, 123_457):
        wanted = str(datetime.timedelta(seconds=seconds))
        days, _, clock = wanted.rpartition(", ")
        days = f"{days.split()[0]} d " if days else ""
        assert durations.clock(seconds) == days + clock.zfill(8)
