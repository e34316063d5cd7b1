"""What to train next: ``make train``.

Names every recipe that has no model yet and every model that does not beat its baseline, with the command to run.
"""

from __future__ import annotations

from collections.abc import Iterable

from velatura import catalog
from velatura.catalog import Card
from velatura.training.recipes import RECIPES

__all__ = ["misses", "queue"]


def misses(card: Card) -> list[str]:
    """Name the figures of a model that are not surely better than the baseline's: whose intervals overlap."""
    return [
        f"{score.metric} {score.value:.3g} against {score.baseline}'s {score.baseline_value:.3g}"
        for score in card.scores
        if score.baseline
        and not (score.high < score.baseline_low if score.better == "lower" else score.low > score.baseline_high)
    ]


def queue(cards: Iterable[Card], recipes: Iterable[str]) -> list[str]:
    """Say what is to be trained, one line each: a recipe without a model first, then a model that misses its bar."""
    cards = list(cards)
    trained = {card.recipe for card in cards}
    lines = [
        f"{recipe}: no model yet; velatura train {recipe} -o runs/{recipe} --resume"
        for recipe in recipes
        if recipe not in trained
    ]
    for card in cards:
        reasons = misses(card) if card.scores else ["not measured yet"]
        if reasons:
            command = f"velatura train {card.recipe} -o runs/{card.recipe} --resume"
            lines.append(f"{card.name}: {'; '.join(reasons)}; {command}")
    return lines


if __name__ == "__main__":
    print(
        *queue(catalog.cards(), RECIPES) or ["Every recipe has a model, and every model beats its baseline."], sep="\n"
    )
