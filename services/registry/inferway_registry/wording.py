"""What callers sent: whether it may be shown on a terminal, and cut to a length that fits into an error's headers."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

MAX_SHOWN_CHARACTERS = 80
MAX_LISTED = 10


def has_control_characters(text: str) -> bool:
    """Whether it could move the cursor of a terminal, or change what stands there."""
    return any(unicodedata.category(character) == "Cc" for character in text)


def shown(text: str) -> str:
    """The text, or its beginning."""
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}… ({len(text)} characters)"


def listed(items: Sequence[str]) -> str:
    """The first items with commas, and how many more there are."""
    more = f" and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else ""
    return ", ".join(map(shown, items[:MAX_LISTED])) + more
