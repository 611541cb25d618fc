"""Names as people type them and as file systems keep them: é is one character or two."""

import unicodedata


def same(name: str) -> str:
    """One spelling (NFC) of all that look alike; macOS keeps names in the other (NFD)."""
    return unicodedata.normalize("NFC", name)
