"""One table, three forms: for the terminal, for a page of Markdown, for a program."""

from __future__ import annotations

from dataclasses import dataclass

import rich.table
from rich.console import Console


@dataclass(frozen=True)
class Table:
    """Cells of text under a title."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def rich(self) -> rich.table.Table:
        """For the terminal; all columns but the first are numbers."""
        table = rich.table.Table(title=self.title, title_justify="left")
        for i, column in enumerate(self.columns):
            table.add_column(column, justify="right" if i else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For a page; ends without a line break."""
        head = [self.columns, ("---", *("---:" for _ in self.columns[1:]))]
        return "\n".join("| " + " | ".join(row) + " |" for row in (*head, *self.rows))


def show(console: Console, table: Table) -> None:
    """Prints a table: drawn on a terminal, as Markdown into a file or a pipe."""
    if console.is_terminal:
        console.print(table.rich())
    else:
        console.print(f"{table.title}\n\n{table.markdown()}", markup=False, soft_wrap=True, highlight=False)
