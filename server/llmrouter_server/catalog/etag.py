"""Etags: the mark of one revision of one thing."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID


def etag_of(thing_id: UUID, revision: int) -> str:
    """Make the etag of a revision: the same on every replica, and never that of another thing."""
    return hashlib.blake2b(f"{thing_id} {revision}".encode(), digest_size=8).hexdigest()
