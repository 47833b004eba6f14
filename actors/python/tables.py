"""pandas tables as plain columns, and as the JSON that is shown of them."""

from __future__ import annotations

import math
import sys
from typing import Any, Final

from runvisor.policies.errors import UnserializableValue

MAX_SHOWN_ROWS: Final = 1000


def is_table(value: Any) -> bool:
    """Say whether a value is a pandas DataFrame."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, getattr(pandas, "DataFrame", ()))


def columns_of(value: Any) -> dict[str, list[Any]] | None:
    """Return the columns of a DataFrame, or of a Series that has an index of its own.

    An index that is more than a row count comes first, as columns under its
    names, or as ``index``. Dates are ISO text. A missing number of a numpy
    column is NaN; anything else that is missing is None.

    Returns:
        Columns by name, or None for anything that is no table.

    Raises:
        UnserializableValue: Two columns have the same name.
    """
    pandas = sys.modules.get("pandas")
    if pandas is None:
        return None
    if isinstance(value, pandas.Series) and not _counts_rows(pandas, value.index):
        value = value.to_frame("value" if value.name is None else value.name)
    if not isinstance(value, pandas.DataFrame):
        return None
    named: list[tuple[str, Any]] = []
    if not _counts_rows(pandas, value.index):
        index = value.index
        for level in range(index.nlevels):
            unnamed = "index" if index.nlevels == 1 else f"level_{level}"
            name = index.names[level]
            named.append((unnamed if name is None else str(name), index.get_level_values(level)))
    named += [(str(name), value.iloc[:, position]) for position, name in enumerate(value.columns)]
    names = [name for name, _ in named]
    repeated = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if repeated is not None:
        raise UnserializableValue(
            f"two columns of the table are called {repeated!r}", "value", "rename one, or drop the index"
        )
    return {name: _items(column) for name, column in named}


def values_of(value: Any) -> list[Any] | None:
    """Return the items of a plain Series, an Index or a pandas array; None for anything else."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.Series | pandas.Index | pandas.api.extensions.ExtensionArray):
        return _items(value)
    return None


def text_of(value: Any) -> str | None:
    """Return the text of a pandas scalar that has no other plain form; None for anything else."""
    pandas = sys.modules.get("pandas")
    return str(value) if pandas is not None and isinstance(value, pandas.Period | pandas.Interval) else None


def is_missing(value: Any) -> bool:
    """Say whether a value is one of pandas' signs for nothing there."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and (value is pandas.NaT or value is pandas.NA)


def to_json(table: Any) -> bytes:
    """Return what is shown of a DataFrame: columns, index, data by rows, and how many rows there are.

    Args:
        table: A DataFrame; `MAX_SHOWN_ROWS` of its rows are written.
    """
    text = table.head(MAX_SHOWN_ROWS).to_json(orient="split", date_format="iso", default_handler=str)
    return f'{text[:-1]},"rows":{len(table)}}}'.encode()


def warm() -> None:
    """Import what pandas imports only when it first shows a table."""
    table = sys.modules["pandas"].DataFrame({"a": [1]})
    table._repr_html_()
    to_json(table)


def _counts_rows(pandas: Any, index: Any) -> bool:
    """Say whether an index is the one that every new table has."""
    is_range = isinstance(index, pandas.RangeIndex)
    return is_range and index.start == 0 and index.step == 1 and index.name is None


def _items(column: Any) -> list[Any]:
    items: list[Any] = column.tolist()
    if getattr(column.dtype, "kind", "O") in "biuf" and not hasattr(column.dtype, "na_value"):
        return items
    return [None if is_missing(item) or (isinstance(item, float) and math.isnan(item)) else item for item in items]
