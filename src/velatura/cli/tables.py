"""Tables on stdout."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["new_table", "print_table"]


def new_table(*columns: str, title: str | None = None) -> Table:
    """Make a plain table, whose cells are text and never markup."""
    return Table(*columns, title=title, box=box.SIMPLE, title_justify="left")


def print_table(table: Table) -> None:
    """Print a table on stdout: as wide as the terminal, and as wide as it needs in a pipe."""
    console = Console(markup=False)
    if console.is_terminal:
        console.print(table)
        return
    # The usual 80 columns would cut what scripts look for, and what fills cells up to their column is for eyes.
    console = Console(markup=False, width=10_000)
    with console.capture() as printed:
        console.print(table)
    for line in printed.get().splitlines():
        print(line.rstrip())
