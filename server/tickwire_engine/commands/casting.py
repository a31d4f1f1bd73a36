"""Columns from senders into the types of components: by value and without loss, or not at all.

Layouts (dictionaries, large and view types) are no loss. Numbers go into numbers, text into text, times into times; a
cast that does not give the sent values back when it is undone is refused, and so is text for a number.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tickwire_engine.errors import SchemaMismatchError

_FAMILIES = (
    (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
    (pa.types.is_boolean,),
    (
        *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        *(
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_binary_view,
            pa.types.is_fixed_size_binary,
        ),
    ),
    (pa.types.is_timestamp, pa.types.is_date),
    (pa.types.is_duration,),
    (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list),
    (pa.types.is_struct,),
)


def cast_column(array: pa.Array[Any], field: pa.Field[Any], *, path: str) -> pa.Array[Any]:
    """Return `array` in the type of `field`.

    Raises:
        SchemaMismatchError: It does not go without loss, or has nulls where none are allowed; the error's field is `path`.
    """
    if array.type != field.type:
        array = _cast(array, field.type, path)
    _refuse_nulls(array, field, path)
    return array


def _cast(array: pa.Array[Any], kind: pa.DataType, path: str) -> pa.Array[Any]:
    try:
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()  # type: ignore[attr-defined]
        if not _related(array.type, kind):
            raise SchemaMismatchError(
                f"{path}: {array.type} is not taken for {kind}", field=path, expected=kind, actual=array.type
            )
        fitted = array.cast(kind, safe=True)
        if not _is_layout_only(array.type, kind) and not _equal(fitted.cast(array.type, safe=True), array):
            raise pa.ArrowInvalid("a value would change")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaMismatchError(
            f"{path}: {array.type} does not fit {kind} without loss: {first_line(error)}",
            field=path,
            expected=kind,
            actual=array.type,
        ) from None
    return fitted


def _related(given: Any, wanted: Any) -> bool:
    if pa.types.is_dictionary(given):
        given = given.value_type
    if pa.types.is_null(given):
        return True
    for family in _FAMILIES:
        if any(test(given) for test in family):
            return any(test(wanted) for test in family) and _children_related(given, wanted)
    return False


def _children_related(given: Any, wanted: Any) -> bool:
    if pa.types.is_struct(given):
        names = {wanted.field(i).name: wanted.field(i).type for i in range(wanted.num_fields)}
        pairs = [(given.field(i).type, names.get(given.field(i).name)) for i in range(given.num_fields)]
        return all(kind is not None and _related(sent, kind) for sent, kind in pairs)
    if not pa.types.is_nested(given):
        return True
    lists: tuple[Any, Any] = (given, wanted)
    return _related(lists[0].value_type, lists[1].value_type)


def _is_layout_only(given: Any, wanted: Any) -> bool:
    text = _FAMILIES[2]
    return pa.types.is_null(given) or (any(t(given) for t in text) and any(t(wanted) for t in text))


def _equal(one: Any, other: Any) -> bool:
    """Whether two arrays of one type hold the same values; a NaN is as good as another."""
    if one.null_count != other.null_count or not one.is_null().equals(other.is_null()):
        return False
    if pa.types.is_floating(one.type):
        same = pc.or_(pc.equal(one, other), pc.and_(pc.is_nan(one), pc.is_nan(other)))
        return pc.all(same, min_count=0).as_py() is not False
    if pa.types.is_list(one.type) or pa.types.is_large_list(one.type):
        lengths = [pc.list_value_length(array) for array in (one, other)]
        return lengths[0].equals(lengths[1]) and _equal(one.flatten(), other.flatten())
    if pa.types.is_fixed_size_list(one.type):
        return _equal(one.flatten(), other.flatten())
    if pa.types.is_struct(one.type):
        return all(_equal(a, b) for a, b in zip(one.flatten(), other.flatten(), strict=True))
    return bool(one.equals(other))


def _refuse_nulls(array: Any, field: pa.Field[Any], path: str) -> None:
    if array.null_count and not field.nullable:
        raise SchemaMismatchError(
            f"{path}: {array.null_count} nulls in a column that is not nullable",
            field=path,
            expected=f"{field.type} not null",
            actual="null",
        )
    kind: Any = field.type
    if pa.types.is_struct(kind):
        inside = array.filter(array.is_valid()) if array.null_count else array
        for index, column in enumerate(inside.flatten()):
            _refuse_nulls(column, kind.field(index), f"{path}.{kind.field(index).name}")
    elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        _refuse_nulls(array.flatten(), kind.value_field, f"{path}[]")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text: Arrow's go on with a stack."""
    text = str(error).splitlines()
    return text[0][:200] if text else type(error).__name__
