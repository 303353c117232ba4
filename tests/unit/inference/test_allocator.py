"""What the front does about memory that it frees."""

from __future__ import annotations

import subprocess
import sys

import pytest

_MINOR_FAULTS_OF_COPIES = """
import resource
from inferway_inference.allocator import keep_freed_memory
if {kept}:
    keep_freed_memory()
picture = bytes(600_000)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for copy in range(3):  # the first ones take memory
    held = [bytearray(picture) for _ in range(8)]
    del held
before = faults()
for copy in range(20):
    held = [bytearray(picture) for _ in range(8)]
    del held
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own settings")
def test_memory_that_was_freed_is_used_again():
    """To get pages from the kernel takes longer than to copy a picture into them."""
    usual, kept = (
        int(subprocess.check_output([sys.executable, "-c", _MINOR_FAULTS_OF_COPIES.format(kept=kept)], timeout=30))
        for kept in (False, True)
    )
    assert kept < usual / 10, f"{kept} page faults, {usual} without"
