"""The order in which features are shown."""

from __future__ import annotations

from PIL import Image

from robust_synthesis.client import Unit
from robust_synthesis.studio.app import rank

EXAMPLES = Image.new("RGB", (8, 8))


def test_features_that_somebody_has_named_come_first_and_those_without_pictures_last() -> None:
    sky, dog, unnamed, bare = (
        Unit(9, "blue sky", "bird", EXAMPLES),
        Unit(2, "dog 2", "dog", EXAMPLES),
        Unit(5, "", "cat", EXAMPLES),
        Unit(1, "golden fur", "dog", None),
    )
    assert sorted([bare, dog, unnamed, sky], key=rank) == [sky, unnamed, dog, bare]
