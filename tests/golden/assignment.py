"""Makes assignment.json: `python -m tests.golden.assignment`. Made once; other implementations rely on what it says.

Each vector is a salt, a unit, their hash in hex, the bucket, and the index of the arm for each table of weights.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from pathlib import Path

from xxhash import xxh3_64_hexdigest

from inferway_gateway.routing import Arm, Endpoint, bucket_of

FILE = Path(__file__).with_suffix(".json")
TABLES = (
    (100, 9_900),
    (500, 9_500),
    (5_000, 5_000),
    (9_999, 1),
    (0, 10_000),
    (10_000, 0),
    (3_333, 3_333, 3_334),
    (1_000, 0, 2_000, 7_000),
)
COUNT = 1_000
SALTS = ("", "salt", "söd", "2b0f6c1de04a4d5f9a3c7e8812345678")
FOREIGN = (
    "ünit",
    "u\u0308nit",
    "用户-42",
    "مستخدم",
    "пользователь",
    "👩‍🔬",
    "\U0001f600",
    "a\0b",
    "line\nbreak",
    " space ",
    '"',
)
"""Characters of two to four bytes, two spellings of one word, and what needs escapes."""
BLOCK_LENGTHS = (*range(1, 281, 4), 1_023, 1_024, 1_025, 2_049)
"""XXH3 has other ways for 3, 8, 16, 128 and 240 bytes and more, and blocks of 1,024."""


def units() -> Iterator[str]:
    """Never ends."""
    source = random.Random(16)
    yield from ("", *FOREIGN)
    yield from ("".join(source.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=length)) for length in BLOCK_LENGTHS)
    number = 0
    while True:
        number += 1
        yield from (f"user-{number}", str(uuid.UUID(int=source.getrandbits(128), version=4)), f"{number}@example.com")


def arms_of(weights: tuple[int, ...], salt: str, unit: str) -> int:
    """The index of the arm that a gateway chooses."""
    arms = tuple(Arm(str(index), "v", weight) for index, weight in enumerate(weights))
    return int(Endpoint("e", arms, salt).choose(unit).name)


def vectors() -> Iterator[tuple[str, str, str, int, list[int]]]:
    """COUNT of them: the odd units with every salt, the others with one each."""
    every = len(FOREIGN) + 1
    made = 0
    for index, unit in enumerate(units()):
        for salt in SALTS if index < every else (SALTS[index % len(SALTS)],):
            if made == COUNT:
                return
            made += 1
            arms = [arms_of(weights, salt, unit) for weights in TABLES]
            yield salt, unit, xxh3_64_hexdigest((salt + unit).encode()), bucket_of(salt, unit), arms


def write() -> None:
    """Writes the file, a line for each vector."""
    lines = ",\n    ".join(json.dumps(vector) for vector in vectors())
    about = (
        "salt, unit, xxh3_64 of their UTF-8, bucket = hash * 10000 >> 64, index of the arm for each table of weights"
    )
    head = f'{{\n  "about": {json.dumps(about)},\n  "tables": {json.dumps(TABLES)},\n'
    FILE.write_text(f'{head}  "vectors": [\n    {lines}\n  ]\n}}\n')


if __name__ == "__main__":
    write()
