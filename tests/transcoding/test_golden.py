from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import golden

if TYPE_CHECKING:
    from golden import Player

NEEDS_A_FAULT = {"error_503"}  # played where the database is stopped
CHANGES_THE_MODELS = {
    "health_list",
    "health_of_tried_provider",
    "models_create",
    "models_disable",
    "models_get",
    "models_list_with_disabled",
    "models_update",
}


@pytest.mark.parametrize("name", [name for name in golden.NAMES if name not in NEEDS_A_FAULT | CHANGES_THE_MODELS])
def test_golden(player: Player, name: str) -> None:
    player.play(name)


@pytest.mark.parametrize("name", sorted(CHANGES_THE_MODELS))
def test_golden_over_a_catalogue_of_its_own(other_player: Player, name: str) -> None:
    other_player.play(name)
