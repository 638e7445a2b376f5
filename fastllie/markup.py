"""What a notebook shows: tables in HTML that need nothing from elsewhere."""

from collections.abc import Iterable, Sequence
from html import escape


def table(
    rows: Iterable[Sequence[str]], *, title: str = "", notes: Iterable[str] = (), head: bool = True
) -> str:
    """Rows of cells as a table: names at the left, numbers at the right.

    Args:
        rows: Texts, escaped here.
        title: A line above.
        notes: Lines below.
        head: Whether the first row names the columns; else the first cell names its row.
    """
    rows = list(rows)
    lines = []
    for place, cells in enumerate(rows):
        named = head and place == 0
        made = []
        for column, cell in enumerate(cells):
            tag = "th" if named or (not head and column == 0) else "td"
            side = "right" if head and column else "left"
            made.append(f'<{tag} style="text-align:{side};vertical-align:top">{escape(cell)}</{tag}>')
        lines.append(f"<tr>{''.join(made)}</tr>")
    parts = [f"<p><b>{escape(title)}</b></p>"] if title else []
    if rows:
        parts.append(f"<table>{''.join(lines)}</table>")
    parts += [f"<p><small>{escape(note)}</small></p>" for note in notes]
    return f"<div>{''.join(parts)}</div>"
