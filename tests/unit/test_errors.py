"""What callers are told."""

from __future__ import annotations

import time

from robust_synthesis.errors import NotFound


def test_a_name_is_answered_with_those_that_are_near() -> None:
    assert str(NotFound("target", "dgo", ["cat", "dog"])) == "target: there is no target 'dgo'; did you mean dog?"
    assert str(NotFound("target", "x", ["cat", "dog"])) == "target: there is no target 'x'; choose one of cat, dog."


def test_a_name_of_many_megabytes_is_answered_at_once_and_in_short() -> None:
    name = "xy" * 10**7
    began = time.process_time()
    error = NotFound("model", name, ["cifar10"])
    assert time.process_time() - began < 0.2
    assert len(str(error)) < 300
