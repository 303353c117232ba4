"""Pages of lists: how large, and where the next begins."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from inferway.errors import InvalidField

T = TypeVar("T")

DEFAULT_SIZE = 100
MAX_SIZE = 1_000
_KEY = re.compile(r"[a-z0-9._-]{1,63}")
_NUMBER = re.compile(r"[0-9]{1,18}")


def read_size(page_size: int) -> int:
    """How many entries a page may have; raises InvalidField."""
    if not 0 <= page_size <= MAX_SIZE:
        raise InvalidField.at("page_size", f"expected 0 to {MAX_SIZE}")
    return page_size or DEFAULT_SIZE


def read_token(listing: str, page_token: str) -> str:
    """The key after which the page begins, empty for the first; raises InvalidField.

    `listing` says what is listed, so that no list takes another's token.
    """
    if not page_token:
        return ""
    try:
        kind, _, key = base64.urlsafe_b64decode(page_token.encode()).decode().partition("\n")
    except (binascii.Error, UnicodeError) as error:
        raise _refused() from error
    if kind != listing or not _KEY.fullmatch(key):
        raise _refused()
    return key


def read_number(listing: str, page_token: str, first: int) -> int:
    """As `read_token` where keys are numbers; `first` stands for the first page."""
    key = read_token(listing, page_token)
    if not key:
        return first
    if not _NUMBER.fullmatch(key):
        raise _refused()
    return int(key)


def cut(listing: str, found: Sequence[T], size: int, key: Callable[[T], str]) -> tuple[Sequence[T], str]:
    """The page and the next page's token, of one entry more than a page if there are so many."""
    page = found[:size]
    more = len(found) > size
    return page, base64.urlsafe_b64encode(f"{listing}\n{key(page[-1])}".encode()).decode() if more else ""


def _refused() -> InvalidField:
    return InvalidField.at("page_token", "not a next_page_token of this list; begin again without one")
