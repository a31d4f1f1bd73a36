"""Components: the typed data that entities are made of.

A component is a pydantic model with flat Arrow columns: field ``x`` of ``Position`` is the column ``position__x``.
User code subclasses `Component`; the engine itself works on `ComponentType`, a plain value that a class, or a
client that registers a component by RPC, gives rise to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from lancedb.pydantic import LanceModel
from pydantic import ConfigDict
from pydantic_core import PydanticUndefined

from tickwire_engine.errors import ComponentExistsError, UnknownComponentError
from tickwire_engine.values import exact_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

COMPONENT_KEY = b"tickwire.component"
FIELD_KEY = b"tickwire.field"


class Component(LanceModel):
    """The base class of all components: subclass it and declare typed fields.

    A class name is a component's name, unique ignoring case among the classes that are alive; it becomes the
    prefix of the component's columns.
    """

    model_config = ConfigDict(extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for other in _subclasses(Component):
            same_place = (other.__module__, other.__qualname__) == (cls.__module__, cls.__qualname__)
            if other is not cls and other.__name__.lower() == cls.__name__.lower() and not same_place:
                raise ComponentExistsError(
                    f"component {cls.__name__} is defined in {cls.__module__} and, ignoring case, in "
                    f"{other.__module__} too; names are unique: rename one of them",
                    component=cls.__name__,
                )

    @classmethod
    def get_type_by_name(cls, name: str) -> type[Component]:
        """Return the subclass called `name`, wherever it stands in the tree of subclasses.

        Raises:
            UnknownComponentError: No such class has been defined.
        """
        found: type[Component] | None = None
        for candidate in _subclasses(Component):
            if candidate.__name__ == name:
                found = candidate
        if found is None:
            raise UnknownComponentError(f"no component class is called {name!r}", component=name)
        return found

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Component:
        """Build an instance from plain values; ``data["type"]``, where given, names the class.

        A field that is itself called ``type`` wins over the class name on a concrete class.
        """
        target = cls
        fields = dict(data)
        if "type" in fields and "type" not in cls.model_fields:
            target = cls.get_type_by_name(fields.pop("type"))
        return target(**fields)

    @classmethod
    def get_prefix(cls) -> str:
        """Return the prefix of this component's columns, as ``"position__"``."""
        return f"{cls.__name__.lower()}__"

    @classmethod
    def to_pyarrow_schema(cls) -> pa.Schema:
        """Return the Arrow schema of the bare fields, in the types that go on the wire."""
        return wire_schema(cls.to_arrow_schema())  # type: ignore[no-untyped-call]

    @classmethod
    def get_prefixed_schema(cls) -> pa.Schema:
        """Return the schema as it stands in an archetype: prefixed names, component and field in the metadata."""
        return ComponentType.of(cls).prefixed_schema

    def to_row_dict(self) -> dict[str, Any]:
        """Return this instance's values under their prefixed column names."""
        prefix = self.get_prefix()
        return {f"{prefix}{name}": value for name, value in self.model_dump().items()}


def _subclasses(root: type[Component]) -> Iterator[type[Component]]:
    for child in root.__subclasses__():
        yield child
        yield from _subclasses(child)


def wire_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema in the types that go on the wire, without metadata."""
    return pa.schema([_wire_field(f) for f in schema])


def _wire_field(source: pa.Field[Any]) -> pa.Field[Any]:
    return pa.field(source.name, _wire_type(source.type), nullable=source.nullable)


def _wire_type(source: Any) -> Any:
    """Only the types that every reader knows: no dictionaries, no extension types, times in UTC microseconds."""
    if pa.types.is_dictionary(source):
        return _wire_type(source.value_type)
    if isinstance(source, pa.BaseExtensionType):
        return _wire_type(source.storage_type)
    if pa.types.is_timestamp(source):
        return pa.timestamp("us", tz="UTC")
    if pa.types.is_duration(source):
        return pa.duration("us")
    if pa.types.is_large_string(source) or pa.types.is_string_view(source):
        return pa.utf8()
    if pa.types.is_large_binary(source) or pa.types.is_binary_view(source):
        return pa.binary()
    if pa.types.is_fixed_size_list(source):
        return pa.list_(_wire_field(source.value_field), source.list_size)
    if pa.types.is_list(source) or pa.types.is_large_list(source):
        return pa.list_(_wire_field(source.value_field))
    if pa.types.is_struct(source):
        return pa.struct([_wire_field(source.field(i)) for i in range(source.num_fields)])
    return source


@dataclass(frozen=True, slots=True)
class ComponentType:
    """A component as the engine sees it: a name, columns and defaults.

    Attributes:
        name: The class name, as ``"Position"``.
        schema: The bare fields.
        defaults: Default by field, in Python values that `pyarrow.array` takes; a field without one is required.
        origin: "APP" for classes, "RPC" for components that a client registered.
        prefix: As ``"position__"``.
        prefixed_schema: The columns in an archetype.
        fields: By name, the bare field, and the Python type whose values go into its column just as they are (None:
            there is none): looking it up in the schema costs more than most values.
    """

    name: str
    schema: pa.Schema
    defaults: Mapping[str, Any]
    origin: str = "APP"
    prefix: str = field(init=False)
    prefixed_schema: pa.Schema = field(init=False)
    fields: Mapping[str, tuple[pa.Field[Any], type | None]] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        prefix = f"{self.name.lower()}__"
        object.__setattr__(self, "prefix", prefix)
        columns = [
            pa.field(
                prefix + f.name,
                f.type,
                nullable=f.nullable,
                metadata={COMPONENT_KEY: self.name.encode(), FIELD_KEY: f.name.encode()},
            )
            for f in self.schema
        ]
        object.__setattr__(self, "prefixed_schema", pa.schema(columns))
        object.__setattr__(self, "fields", {f.name: (f, exact_type(f.type)) for f in self.schema})

    @classmethod
    def of(cls, model: type[Component]) -> ComponentType:
        """Describe a component class."""
        defaults: dict[str, Any] = {}
        for name, info in model.model_fields.items():
            if info.default_factory is not None:
                defaults[name] = _plain(info.default_factory())  # type: ignore[call-arg]
            elif info.default is not PydanticUndefined:
                defaults[name] = _plain(info.default)
        return cls(model.__name__, model.to_pyarrow_schema(), defaults)

    def fingerprint(self) -> dict[str, Any]:
        """Return what the configuration id covers: names, types and nullability."""
        return {"name": self.name, "fields": [[f.name, str(f.type), f.nullable] for f in self.schema]}


def _plain(value: Any) -> Any:
    if isinstance(value, LanceModel):
        return value.model_dump()
    if hasattr(value, "value") and hasattr(value, "name"):  # an enum member
        return value.value
    return value


class ComponentCatalog:
    """The components that an engine knows by name: the app's classes and those registered by clients.

    Lives as long as its engine; used on the event loop only.
    """

    def __init__(self, types: Iterable[ComponentType] = ()) -> None:
        self.generation = 0
        """Counts changes: where it is as it was, so are all shapes."""
        self._types: dict[str, ComponentType] = {}
        self._models: dict[str, type[Component]] = {}
        for entry in types:
            self.add(entry)

    def __contains__(self, name: str) -> bool:
        return name in self._types

    def __iter__(self) -> Iterator[ComponentType]:
        return iter(sorted(self._types.values(), key=lambda entry: entry.name))

    def register(self, model: type[Component]) -> ComponentType:
        """Make a class known; a class that is known with the same shape is left as it is."""
        if self._models.get(model.__name__) is model:
            return self._types[model.__name__]
        entry = self.add(ComponentType.of(model))
        self._models[model.__name__] = model
        return entry

    def add(self, entry: ComponentType) -> ComponentType:
        """Make a described component known.

        Raises:
            ComponentExistsError: A component of that name, ignoring case, has another shape.
        """
        for other in self._types.values():
            if other.name.lower() != entry.name.lower():
                continue
            if other.name != entry.name or not other.schema.equals(entry.schema):
                raise ComponentExistsError(
                    f"component {entry.name} exists as {other.name}"
                    f"({', '.join(f'{f.name}: {f.type}' for f in other.schema)}); the new one has "
                    f"({', '.join(f'{f.name}: {f.type}' for f in entry.schema)})",
                    component=entry.name,
                )
        known = self._types.get(entry.name)
        if known is None or not known.schema.equals(entry.schema):
            self.generation += 1
        self._types[entry.name] = entry
        return entry

    def grow(self, entry: ComponentType) -> None:
        """Put a component in the place of the one that it has grown from."""
        self._types[entry.name] = entry
        self.generation += 1

    def reshaped(self, schemas: Mapping[str, pa.Schema]) -> ComponentCatalog:
        """Return a catalog of the same components, some of them with the fields of another time."""
        other = ComponentCatalog()
        other._models = dict(self._models)
        for name, entry in self._types.items():
            schema = schemas.get(name)
            if schema is not None:
                kept = {field: value for field, value in entry.defaults.items() if field in schema.names}
                entry = replace(entry, schema=schema, defaults=kept)
            other._types[name] = entry
        return other

    def find(self, name: str) -> ComponentType | None:
        """Return the component called `name`, ignoring case, or None."""
        return next((entry for entry in self._types.values() if entry.name.lower() == name.lower()), None)

    def require(self, name: str) -> ComponentType:
        """Return the component called `name`.

        Raises:
            UnknownComponentError: It is not registered; the message lists what is.
        """
        try:
            return self._types[name]
        except KeyError:
            known = ", ".join(sorted(self._types)) or "none"
            raise UnknownComponentError(
                f"component {name!r} is not registered (known: {known})", field=name, component=name
            ) from None

    def model(self, name: str) -> type[Component] | None:
        """Return the class of a component, or None for one that came by RPC."""
        return self._models.get(name)


def defaults_json(entry: ComponentType) -> str:
    """Return a component's defaults as canonical JSON."""
    return json.dumps(dict(entry.defaults), sort_keys=True, separators=(",", ":"), default=str)
