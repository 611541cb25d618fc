"""Tables that may be wider than a phone: they scroll, and show where they are cut."""


def scrollable(label: str, table: str) -> str:
    """A box around a `<table>` that can be reached and scrolled by keyboard.

    `label`, which must be safe in HTML, is what a screen reader says. The style shows a shadow at
    the side that is cut, the script of the page the words "scroll →".
    """
    return f'<div class="wide" tabindex="0" role="region" aria-label="{label}">{table}</div>'
