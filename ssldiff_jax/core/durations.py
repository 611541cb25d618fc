"""Durations as people read them."""

_DAY = 24 * 60 * 60


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, with days from 24 hours on: 08:47:56, 17 d 08:47:56."""
    days, rest = divmod(round(seconds), _DAY)
    minutes, rest = divmod(rest, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours:02d}:{minutes:02d}:{rest:02d}"
    return f"{days} d {text}" if days else text
