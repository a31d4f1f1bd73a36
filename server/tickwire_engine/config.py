"""What a world, its storage and a run of it are made with: pydantic models, as users write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tickwire_engine.ids import uuid7
from tickwire_engine.storage.retention import KEEP_BYTES, KEEP_TICKS, Retention


class WorldConfig(BaseModel):
    """A world to be made: its identity and its limits."""

    model_config = ConfigDict(extra="forbid")

    world_id: UUID = Field(default_factory=uuid7)
    """Generated (UUIDv7) unless given; the same id names the same world for ever."""
    name: str = ""
    """Unique among living worlds, `[a-z][a-z0-9_-]{0,62}`; "" makes one from the id."""
    seed: int | None = None
    """Seed of `TickRandom`; None draws one, which the journal keeps."""
    labels: dict[str, str] = Field(default_factory=dict)
    template: str = ""
    """Name of an app's `@app.world`, which fills the new world; "" leaves it empty."""
    max_entities: int | None = Field(default=None, ge=1)
    """Active entities that the world may hold; None: as many as the engine's `Limits` say when it is made."""
    keep_ticks: int = Field(default=KEEP_TICKS, ge=0)
    """Newest ticks kept densely; 0 keeps all."""
    keep_every: int = Field(default=0, ge=0)
    """Of older ticks those that it divides are kept; 0 keeps none."""
    keep_bytes: int = Field(default=KEEP_BYTES, ge=0)
    """About how many bytes of archived history may be kept; the oldest go first. 0: no bound."""

    @property
    def retention(self) -> Retention:
        """What of the world's history is kept."""
        return Retention(keep_ticks=self.keep_ticks, keep_every=self.keep_every, keep_bytes=self.keep_bytes)

    @field_validator("world_id", mode="before")
    @classmethod
    def _generate(cls, value: Any) -> Any:
        return uuid7() if value is None else value


class ForkConfig(BaseModel):
    """A fork to be made: what is its own, and how much it shares."""

    model_config = ConfigDict(extra="forbid")

    world_id: UUID = Field(default_factory=uuid7)
    """As that of a world: generated, or the same for a retry."""
    name: str = ""
    """As a world's; "" makes one from the id."""
    at_tick: int | None = None
    """The last tick that it shares, any kept one; None: the last committed one."""
    seed: int | None = None
    """None: one of its own, drawn from the parent's and the fork's id."""
    with_pending: bool = False
    """Commands that wait in the parent wait in the fork too: those due after the last tick that it shares."""
    labels: dict[str, str] = Field(default_factory=dict)

    @field_validator("world_id", mode="before")
    @classmethod
    def _generate(cls, value: Any) -> Any:
        return uuid7() if value is None else value


class StorageConfig(BaseModel):
    """Where a world's journal, tick log and archive lie."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    uri: str = "./tickwire-data"
    """A local folder; it is made where it does not exist."""
    namespace: str = "ecs"
    io_config: Any = None
    """A Daft IOConfig: credentials for cloud storage."""

    @field_validator("uri", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value


class RunConfig(BaseModel):
    """How a run of ticks behaves and what it reports."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    run_id: UUID = Field(default_factory=uuid7)
    num_steps: int = Field(default=1, ge=0)
    debug: bool = False
    """Log structured events of every tick."""
    enable_validation: bool = Field(default=False, alias="validate")
    """Check every processor's result against the component models too."""
    explain: bool = False
    """Print the recorded expressions or the plan of every processor, and the path taken."""
    show_rows: int = Field(default=0, ge=0)
    """Rows of every archetype to print after each tick."""
    prefer_live_reads: bool = True
    """False reads the previous state from the store rather than from memory."""
    suite: str | None = None
    trial: int | None = None
    metadata: dict[str, Any] | None = None

    @classmethod
    def dev(
        cls,
        *,
        steps: int = 1,
        prefer_live_reads: bool = True,
        debug: bool = True,
        explain: bool = False,
        show_rows: int = 5,
        metadata: dict[str, Any] | None = None,
    ) -> Self:
        """Return a configuration to look at a world with: events and a few rows of every tick."""
        return cls(
            num_steps=steps,
            prefer_live_reads=prefer_live_reads,
            debug=debug,
            explain=explain,
            show_rows=show_rows,
            metadata=metadata,
        )

    @classmethod
    def benchmark(
        cls,
        *,
        steps: int,
        explain: bool = False,
        debug: bool = False,
        prefer_live_reads: bool = False,
        show_rows: int = 0,
        suite: str | None = "benchmark",
        trial: int | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Self:
        """Return a configuration that measures: quiet, and labelled by suite and trial."""
        return cls(
            num_steps=steps,
            explain=explain,
            debug=debug,
            prefer_live_reads=prefer_live_reads,
            show_rows=show_rows,
            suite=suite,
            trial=trial,
            metadata=metadata,
        )

    @classmethod
    def validate(  # type: ignore[override]
        cls,
        *,
        steps: int = 1,
        enable_validation: bool = True,
        debug: bool = True,
        prefer_live_reads: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> Self:
        """Return a configuration that checks every result against schema and models."""
        return cls(
            num_steps=steps,
            validate=enable_validation,
            debug=debug,
            prefer_live_reads=prefer_live_reads,
            metadata=metadata,
        )
