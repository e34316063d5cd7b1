"""What to train next."""

from velatura.catalog import Card, Score
from velatura.cli.queue import queue


def score(better: str, ours: tuple[float, float, float], theirs: tuple[float, float, float]) -> Score:
    value, low, high = ours
    other, other_low, other_high = theirs
    return Score(
        metric="error",
        better=better,
        value=value,
        low=low,
        high=high,
        baseline="paste",
        baseline_value=other,
        baseline_low=other_low,
        baseline_high=other_high,
        count=9,
    )


def card(*scores: Score) -> Card:
    return Card.model_construct(name="tiny-net", recipe="tiny", scores=scores)


def test_recipe_without_model():
    assert queue([], ["tiny"]) == ["tiny: no model yet; velatura train tiny -o runs/tiny --resume"]


def test_model_that_beats_its_baseline_waits_for_nothing():
    lower = score("lower", (4, 3, 5), (9, 8, 10))
    higher = score("higher", (9, 8, 10), (4, 3, 5))
    assert queue([card(lower, higher)], ["tiny"]) == []


def test_model_that_misses_its_bar():
    worse = score("lower", (9, 8, 10), (4, 3, 5))
    overlapping = score("higher", (9, 4, 14), (4, 3, 5))
    (line,) = queue([card(worse, overlapping)], ["tiny"])
    assert line.startswith("tiny-net: error 9 against paste's 4; error 9 against paste's 4; velatura train tiny")
    assert "not measured yet" in queue([card()], ["tiny"])[0]
