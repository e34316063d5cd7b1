"""``velatura models``: what the package ships, whether it is whole, and how it leaves for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from velatura import catalog
from velatura.catalog import Card
from velatura.cli.common import print_json
from velatura.cli.tables import new_table, print_table

__all__ = ["models"]

Json = Annotated[bool, Parameter(negative=(), help="Print one JSON line on stdout instead.")]

# No epilogue: the examples of `velatura` are of other commands.
models = App(name="models", help="List, show, verify and export the models.", help_epilogue="")


@models.command(name="list")
def list_models(*, json: Json = False) -> None:
    """List the models, with the first figure measured of each, beside its baseline's if it has one."""
    cards = catalog.cards()
    if json:
        print_json(models=[card.model_dump(mode="json") for card in cards])
        return
    if not cards:
        print("No models yet.")
        return
    table = new_table("model", "task", "parameters", "MiB", "commerce", "measured")
    for card in cards:
        table.add_row(
            card.name,
            card.task,
            f"{card.parameters:,}",
            f"{card.bytes / 2**20:.1f}",
            "yes" if card.commercial_use else "no",
            _first_score(card),
        )
    print_table(table)
    print("velatura models show NAME says what a model saw, on what terms, and what it cannot do.")


@models.command
def show(name: str, /, *, json: Json = False) -> None:
    """Show the card of a model.

    Parameters
    ----------
    name
        Name of the model.
    json
        Print one JSON line on stdout instead.
    """
    card = catalog.card(name)
    if json:
        print_json(**card.model_dump(mode="json"))
        return
    table = new_table("", "", title=card.name)
    table.show_header = False
    table.add_row("task", card.task)
    arguments = ", ".join(f"{key}={value!r}" for key, value in card.arguments.items())
    table.add_row("architecture", f"{card.architecture}({arguments})")
    table.add_row("parameters", f"{card.parameters:,}")
    table.add_row("file", f"{card.file}, {card.bytes:,} bytes")
    table.add_row("sha256", card.sha256)
    for images in card.images:
        table.add_row("saw", f"{images.count:,} images of {images.set}: {images.terms}")
    table.add_row("commerce", f"{'yes' if card.commercial_use else 'no'}: {card.commercial_use_reason}")
    table.add_row("licence", f"{card.weights_licence} (of the weights; the code is Apache-2.0)")
    changed = ", with changes" if card.commit.endswith("-dirty") else ""
    table.add_row("recipe", f"{card.recipe}, commit {card.commit[:10]}{changed}")
    table.add_row("paper", card.paper)
    table.add_row("protocol", card.protocol)
    for score in card.scores:
        ours = f"{score.value:g} [{score.low:g}, {score.high:g}]"
        unit, against = f" {score.unit}" if score.unit else "", ""
        if score.baseline:
            theirs = f"{score.baseline_value:g} [{score.baseline_low:g}, {score.baseline_high:g}]"
            against = f" against {score.baseline} {theirs}"
        table.add_row("measured", f"{score.metric}: {ours}{unit}{against}; {score.better} is better")
    for limit in card.limits:
        table.add_row("limit", limit)
    print_table(table)


@models.command
def verify(*, json: Json = False) -> int:
    """Compare every weights file with its card: size, sha256, architecture, arguments. Exit code 1 if one differs."""
    problems = catalog.verify()
    if json:
        print_json(models=len(catalog.cards()), problems=problems)
    else:
        for problem in problems:
            print(problem)
        print(f"{len(catalog.cards())} models, {len(problems)} problems")
    return 1 if problems else 0


@models.command
def export(
    name: str,
    /,
    *,
    out: Annotated[str, Parameter(name=["--output", "-o"])],
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    json: Json = False,
) -> None:
    """Write a model as an ONNX file, for browsers, phones and other runtimes.

    Parameters
    ----------
    name
        Name of an upscaler, or blending-gan.
    out
        The file to write; ends in .onnx.
    overwrite
        Replace an existing file.
    json
        Print one JSON line on stdout instead.
    """
    # torch is loaded only for a name that may be exported.
    catalog.card(name)
    from velatura.onnx_export import OPSET, export_onnx

    notes = export_onnx(name, out, overwrite=overwrite)
    size = Path(out).stat().st_size
    if json:
        print_json(output=out, bytes=size, opset=OPSET, **notes)
    else:
        print(f"{out}: {size / 2**20:.1f} MiB, ONNX opset {OPSET}; licence of the weights: {notes['licence']}")


def _first_score(card: Card) -> str:
    if not card.scores:
        return "not yet"
    score = card.scores[0]
    unit = f" {score.unit}" if score.unit else ""
    beside = f" ({score.baseline} {score.baseline_value:.3g})" if score.baseline else ""
    return f"{score.metric} {score.value:.3g}{unit}{beside}"
