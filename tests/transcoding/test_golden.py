from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import golden

if TYPE_CHECKING:
    from golden import Player

NEEDS_A_FAULT = {"error_503"}  # played where the database is stopped


@pytest.mark.parametrize("name", [name for name in golden.NAMES if name not in NEEDS_A_FAULT])
def test_golden(player: Player, name: str) -> None:
    player.play(name)
