from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import golden

if TYPE_CHECKING:
    from golden import Player

CHANGES_THE_MODELS = {
    "health_list",
    "health_of_tried_provider",
    "models_create",
    "models_disable",
    "models_get",
    "models_list_with_disabled",
    "models_update",
    "rules_list",
}


@pytest.mark.parametrize("name", sorted({*golden.NAMES} - golden.NEED_NO_DATABASE - CHANGES_THE_MODELS))
def test_golden(player: Player, name: str) -> None:
    player.play(name)


@pytest.mark.parametrize("name", sorted(CHANGES_THE_MODELS))
def test_golden_over_a_catalogue_of_its_own(other_player: Player, name: str) -> None:
    other_player.play(name)
