"""Tables beside pictures: who is on each (``file,person``), what is seen (``file,attr1,...``)."""

from __future__ import annotations

import csv
import io
import math
import posixpath
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from leakaudit.core.errors import InputError
from leakaudit.models.pictures import printable


@dataclass(frozen=True)
class Table:
    """A CSV file: column names and ``(line number, cells)``, every row as long as the header."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]

    def column(self, name: str) -> int:
        """The place of the column with this name; a missing one is an `InputError`."""
        if name not in self.columns:
            found = printable(",".join(self.columns))
            raise InputError(
                f"The table has no column '{name}' (found: {found})",
                where=str(self.path),
                todo="The first line names the columns, separated by commas",
            )
        return self.columns.index(name)


def read_table(path: Path) -> Table:
    """The CSV file (UTF-8, commas, one header line); anything else is an `InputError`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            "The table is not UTF-8 text", where=str(path), todo="Save it as CSV in UTF-8"
        ) from error
    except OSError as error:
        raise InputError(
            f"The table can't be read: {error.strerror}", where=str(path), todo="Check the path"
        ) from error
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows = [(reader.line_num, tuple(c.strip() for c in row)) for row in reader if any(row)]
    except csv.Error as error:
        raise InputError(f"The table is no valid CSV: {error}", where=str(path)) from error
    if not rows:
        raise InputError("The table is empty", where=str(path))
    columns = rows[0][1]
    if twice := [name for name, count in Counter(columns).items() if count > 1]:
        raise InputError(f"The column '{printable(twice[0])}' stands twice", where=str(path))
    for line, cells in rows[1:]:
        if any("\0" in cell for cell in cells):  # what ends a name elsewhere would not end it here
            raise InputError(f"Line {line} holds a NUL character", where=str(path))
        if len(cells) != len(columns):
            raise InputError(
                f"Line {line} has {len(cells)} cells where the header has {len(columns)}",
                where=str(path),
            )
    return Table(path, columns, tuple(rows[1:]))


def read_people(path: Path, *, root: Path, files: Collection[str]) -> dict[str, str]:
    """The person on each file of ``files`` that the table ``file,person`` names.

    Raises `InputError` for missing columns, a row without a person, a file that is not in the
    folder, and a file that stands twice.
    """
    table = read_table(path)
    person = table.column("person")
    matched, unknown = _match(table, root=root, files=files)
    if unknown:
        shown = ", ".join(printable(name) for name in unknown[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise InputError(
            f"The table names {len(unknown)} files that are not in the folder: {shown}{more}",
            where=str(path),
            todo="Names are relative to the folder of pictures or to the table's own folder",
        )
    for line, cells in table.rows:
        if not cells[person]:
            raise InputError(f"Line {line} names no person", where=str(path))
    return {file: _composed(cells[person]) for file, (_, cells) in matched.items()}


def read_attributes(
    path: Path, *, root: Path, files: Sequence[str]
) -> tuple[tuple[str, ...], list[list[float]], int]:
    """Attribute names, a row of 0, 1 or NaN (unknown) for each of ``files``, and how many matched.

    Values are 0 and 1, or -1 and 1 throughout; an empty cell is unknown; a column ``person`` is no
    attribute. Raises `InputError` for other values, no attribute at all, a file that stands twice,
    and a table of which no file is in the folder.
    """
    table = read_table(path)
    matched, _ = _match(table, root=root, files=files)
    if not matched:
        example = printable(table.rows[0][1][table.column("file")]) if table.rows else "none"
        raise InputError(
            f"No row of the attributes fits a picture (its first file: {example}; the folder's "
            f"first picture: {printable(min(files))})",
            where=str(path),
            todo="Names are relative to the folder of pictures or to the table's own folder",
        )
    kept = [i for i, name in enumerate(table.columns) if name not in ("file", "person")]
    if not kept:
        raise InputError("The table names no attribute", where=str(path))
    negative = any(cells[i].startswith("-") for _, cells in table.rows for i in kept)
    low = -1.0 if negative else 0.0
    unknown = [math.nan] * len(kept)
    values = {
        file: [_binary(cells[i], low, table, line=line, column=i) for i in kept]
        for file, (line, cells) in matched.items()
    }
    names = tuple(table.columns[i] for i in kept)
    return names, [values.get(file, unknown) for file in files], len(matched)


def _binary(cell: str, low: float, table: Table, *, line: int, column: int) -> float:
    if cell.lower() in ("", "nan"):
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.inf
    if value not in (low, 1.0):
        name = printable(table.columns[column])
        raise InputError(
            f"Line {line}, column '{name}' holds '{printable(cell)}', which is neither 0 nor 1",
            where=str(table.path),
            todo="Attributes are 0 and 1 (or -1 and 1 throughout); leave unknown ones empty",
        )
    return float(value == 1.0)


def _match(
    table: Table, *, root: Path, files: Collection[str]
) -> tuple[dict[str, tuple[int, tuple[str, ...]]], list[str]]:
    """Rows by the file they name, and names that fit no file.

    A name fits as a path relative to the folder, else to the table's own folder, else as the end
    of one file's path, or the other way round (``set/ann/1.png`` and ``ann/1.png``), where only one
    file fits so; a folder that is the same in all rows says nothing and is left out then. Names are
    compared as text, however accents are coded where that leaves them apart, and never opened.
    """
    column = table.column("file")
    spelt = {_composed(each): each for each in files}
    if len(spelt) < len(set(files)):  # two files that differ in nothing else
        spelt = {each: each for each in files}
    by_base: dict[str, list[str]] = {}
    for each in sorted(spelt):
        by_base.setdefault(posixpath.basename(each), []).append(each)
    matched: dict[str, tuple[int, tuple[str, ...]]] = {}
    unknown = []
    own = table.path.resolve().parent.as_posix()
    alike = len({posixpath.dirname(_posix(cells[column])) for _, cells in table.rows}) == 1
    for line, cells in table.rows:
        told_as = cells[column] if cells[column] in spelt else _composed(cells[column])
        name = _posix(told_as)
        beside = posixpath.relpath(posixpath.join(own, name), root.as_posix())
        file = next((n for n in (told_as, name, beside) if n in spelt), None)
        if file is None:
            base = posixpath.basename(name)
            told = f"/{base if alike else name}"
            near = [f"/{each}" for each in by_base.get(base, [])]
            ends = [each[1:] for each in near if each.endswith(told) or told.endswith(each)]
            file = ends[0] if len(ends) == 1 else None
        file = None if file is None else spelt[file]
        if file is None:
            unknown.append(cells[column])
        elif file in matched:
            raise InputError(
                f"Lines {matched[file][0]} and {line} name the same file, {printable(file)}",
                where=str(table.path),
                todo="Keep one of them",
            )
        else:
            matched[file] = (line, cells)
    return matched, unknown


def _composed(name: str) -> str:
    """Accents as one character with their letter: some systems code file names in two."""
    return unicodedata.normalize("NFC", name)


def _posix(cell: str) -> str:
    return posixpath.normpath(cell.replace("\\", "/")) if cell else ""
