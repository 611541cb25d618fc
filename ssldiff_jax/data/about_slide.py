"""What is known of a slide beside its file."""

import dataclasses

from ssldiff_jax.data import plan


@dataclasses.dataclass(frozen=True)
class About:
    """What is known of a slide that its file's name alone does not say.

    Attributes:
        case: whose slide it is; "" leaves it to the name.
        label: its class; "" where it is unknown.
        side: the split of its case; None: that of the name alone.
        where: the row of a table that says so, for messages.
        reading: what the row says of its reading, as it is written.
        annotations: path or address of its polygons, whatever they are for.
    """

    case: str = ""
    label: str = ""
    side: plan.Side | None = None
    where: str = ""
    reading: str = ""
    annotations: str = ""


NOTHING = About()
"""Of a slide whose file's name says it all."""
