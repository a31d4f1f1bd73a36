"""SEED row "Component": typed data that entities are made of, found by name, spelt as columns."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest

from tests.engine.parts import Place, Score, Tag
from tickwire_engine import Component, ComponentCatalog, ComponentType
from tickwire_engine.errors import ComponentExistsError, UnknownComponentError


class Base(Component):
    """A component with a subclass."""

    a: int = 1


class Derived(Base):
    """A component nested in the tree of subclasses."""

    b: str = "b"


class Typed(Component):
    """A component with a field that is called type."""

    type: str = "plain"


def test_components_are_found_by_name_nested_ones_too() -> None:
    assert Component.get_type_by_name("Place") is Place
    assert Component.get_type_by_name("Derived") is Derived
    with pytest.raises(UnknownComponentError):
        Component.get_type_by_name("Nothing")


def test_two_components_of_one_name_are_an_error_at_definition() -> None:
    with pytest.raises(ComponentExistsError, match="PLACE"):
        type("PLACE", (Component,), {"__module__": "elsewhere"})


def test_from_dict_builds_by_type_and_leaves_its_data() -> None:
    data = {"type": "Derived", "a": 2}
    built = Component.from_dict(data)
    assert built == Derived(a=2, b="b")
    assert data == {"type": "Derived", "a": 2}
    assert Place.from_dict({"x": 3}) == Place(x=3.0)
    assert Typed.from_dict({"type": "mine"}) == Typed(type="mine")
    with pytest.raises(UnknownComponentError):
        Component.from_dict({"type": "Nothing"})


def test_a_component_spells_its_columns() -> None:
    assert Tag.get_prefix() == "tag__"
    assert Tag.to_pyarrow_schema() == pa.schema(
        [
            pa.field("text", pa.utf8(), nullable=False),
            pa.field("count", pa.int64(), nullable=False),
            pa.field("note", pa.utf8()),
        ]
    )
    prefixed = Tag.get_prefixed_schema()
    assert prefixed.names == ["tag__text", "tag__count", "tag__note"]
    assert prefixed.field("tag__note").metadata == {b"tickwire.component": b"Tag", b"tickwire.field": b"note"}
    assert Tag(text="t").to_row_dict() == {"tag__text": "t", "tag__count": 0, "tag__note": None}


def test_a_catalog_refuses_another_shape_of_a_name() -> None:
    catalog = ComponentCatalog()
    first = catalog.register(Place)
    assert catalog.register(Place) is first
    assert catalog.add(ComponentType("Place", first.schema, {})).schema == first.schema
    for name, schema in (("Place", pa.schema({"x": pa.int8()})), ("pLACE", first.schema)):
        with pytest.raises(ComponentExistsError):
            catalog.add(ComponentType(name, schema, {}))
    with pytest.raises(UnknownComponentError) as raised:
        catalog.require("Nothing")
    assert raised.value.field == "Nothing"
    assert "Place" in raised.value.message
    assert ComponentType.of(Score).defaults == {}


def test_times_in_components_have_plain_columns() -> None:
    class Dated(Component):
        at: dt.datetime = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

    assert Dated.to_pyarrow_schema().field("at").type == pa.timestamp("us", tz="UTC")
    assert ComponentType.of(Dated).defaults == {"at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}
