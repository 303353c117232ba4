"""How the front's C allocator treats the memory of tensors.

By default glibc maps what is large anew for each tensor and gives it back at once, and has a pool for each thread, so
that what one thread frees another cannot use. Every copy of a picture then touches pages that the kernel has to find
and clear first, which takes longer than the copy (mallopt(3)).
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
KEPT_BYTES = 64 * 1024 * 1024
"""Free memory beyond this goes back to the system."""
_MAPPED_BYTES = 32 * 1024 * 1024
"""What is larger is still mapped by itself; glibc takes no more."""
_STEP_BYTES = 8 * 1024 * 1024


def keep_freed_memory() -> None:
    """Lets this process use again what it freed. To be called before there are threads; does nothing without glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for parameter, value in (
        (_ARENA_MAX, 1),
        (_MMAP_THRESHOLD, _MAPPED_BYTES),
        (_TRIM_THRESHOLD, KEPT_BYTES),
        (_TOP_PAD, _STEP_BYTES),
    ):
        mallopt(parameter, value)
