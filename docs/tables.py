"""Write the tables of the docs from the code and from what was measured: part of ``make docs``.

A table stands between two comments; what is between them is replaced::

    <!-- table: options blend -->          the options of an application
    <!-- table: models -->                 the cards of the catalog
    <!-- table: scores blending-gan -->    what `velatura evaluate` measured (benchmarks/results/evaluate-NAME.json)
    <!-- table: figures upscale-all -->    the same without protocol and notes
    <!-- table: benchmark blend-speed -->  a part of what `make bench` measured (benchmarks/results/NAME.json)
    <!-- table: capacity -->               what ten million photographs take, from the same measurements
    <!-- end -->

Where nothing was measured yet, it says so.

``python docs/tables.py --check`` changes nothing and fails if a table is stale.
"""

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

from velatura import catalog, schema
from velatura.metrics.report import markdown, read_json

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"
UNKNOWN = "*Not measured yet.*"
PHOTOGRAPHS, MEGAPIXELS = 10_000_000, 12
BUSY = 0.9  # of a cluster's time is work
TABLE = re.compile(r"(<!-- table: (\w+)(?: ([\w-]+))? -->\n).*?(<!-- end -->)", re.DOTALL)


def measured(name: str) -> dict[str, Any] | None:
    """Read a file of results; None if nobody has measured yet."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def options(task: str) -> str:
    """Make the table of an application's options."""
    module = importlib.import_module("velatura.pipeline" if task == "pipeline" else f"velatura.tasks.{task}")
    return schema.options_table(getattr(module, task.title()))


def models() -> str:
    """Make the table of the models."""
    rows = ["| Model | For | Parameters | MiB | Free for commerce | Saw |", "|---|---|---:|---:|---|---|"]
    for card in catalog.cards():
        saw = ", ".join(f"{images.set} ({images.count:,})" for images in card.images)
        free = "yes" if card.commercial_use else "no"
        size = f"{card.bytes / 2**20:.1f}"
        rows.append(f"| `{card.name}` | {card.task} | {card.parameters:,} | {size} | {free} | {saw} |")
    return "\n".join(rows)


def scores(model: str) -> str:
    """Make the table of what was measured of a model."""
    found = measured(f"evaluate-{model}")
    return markdown(read_json(found)) if found else UNKNOWN


def figures(name: str) -> str:
    """Make the table of what was measured, and nothing else."""
    return scores(name).partition("\n\n")[0]


def benchmark(name: str) -> str:
    """Make the table of one part of a benchmark."""
    name, _, part = name.rpartition("-")
    found = measured(name)
    if not found:
        return UNKNOWN
    figures = [figure for figure in found["figures"] if figure["part"] == part]
    if not figures:
        return UNKNOWN
    goals = [("bar", "met"), ("aim", "aim_met")] if any(figure["bar"] is not None for figure in figures) else []
    rows = ["| | Measured |" + " Bar | Aim |" * bool(goals), "|---|---:|" + "---|---|" * bool(goals)]
    for figure in figures:
        cells = [figure["name"], f"{number(figure['value'])} {figure['unit']}".strip()]
        for goal, met in goals:
            reached = "met" if figure[met] else "**missed**"
            cells.append("" if figure[goal] is None else f"{number(figure[goal])}, {reached}")
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def number(value: float) -> str:
    """Write a figure to three digits, large ones without an exponent: 0.155, 47.7, 1,024."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def capacity() -> str:
    """Make the table of what ten million photographs take, from what one megapixel does."""
    found = measured("batch")
    costs: dict[str, dict[str, float]] = {}
    for figure in found["figures"] if found else ():
        application, _, what = figure["name"].partition(": ")
        if figure["part"] == "costs":
            costs.setdefault(application, {})[what] = figure["value"]
    if not costs:
        return UNKNOWN
    rows = [f"| {PHOTOGRAPHS:,} photographs | Core-hours | Cores for a week | GiB a worker |", "|---|---:|---:|---:|"]
    for application, cost in costs.items():
        hours = PHOTOGRAPHS * MEGAPIXELS * cost["CPU time a megapixel"] / 3600
        gibibytes = (cost["memory beside that"] + MEGAPIXELS * cost["memory a megapixel"]) / 1024
        rows.append(f"| {application} | {hours:,.0f} | {hours / (24 * 7 * BUSY):,.0f} | {gibibytes:.1f} |")
    return "\n".join(rows)


def fill(text: str) -> str:
    """Replace every table of a page."""
    makers = {
        **{"options": options, "models": models, "scores": scores, "figures": figures},
        **{"benchmark": benchmark, "capacity": capacity},
    }

    def table(match: re.Match[str]) -> str:
        start, kind, name, end = match.groups()
        made = makers[kind](name) if name else makers[kind]()
        return f"{start}{made}\n{end}"

    return TABLE.sub(table, text)


def main(check: bool) -> int:
    """Fill all pages and the readme; with ``check``, only name the stale ones."""
    stale = []
    for page in sorted([*DOCS.rglob("*.md"), DOCS.parent / "README.md"]):
        before = page.read_text(encoding="utf-8")
        after = fill(before)
        if after != before:
            stale.append(page.relative_to(DOCS.parent))
            if not check:
                page.write_text(after, encoding="utf-8")
    for page in stale:
        print(f"{page}: {'stale; run make docs' if check else 'tables written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
