"""The ECS engine of Tickwire: worlds of typed components, moved on by processors, every tick durable.

Usable alone, in process: `Engine.open` a data directory, `create_world`, `step`. Knows nothing of the network.
"""

import tickwire_engine._environment  # noqa: F401  (first: it sets what others read at import)
from tickwire_engine.broker import CommandBroker
from tickwire_engine.command import ActorCtx, Command, CommandType
from tickwire_engine.component import Component, ComponentCatalog, ComponentType
from tickwire_engine.config import ForkConfig, RunConfig, StorageConfig, WorldConfig
from tickwire_engine.engine import Engine, EngineSetup
from tickwire_engine.errors import TickwireError
from tickwire_engine.mailbox import Mailbox
from tickwire_engine.processor import ArrowProcessor, AsyncProcessor, BaseProcessor, ProcessorRegistry
from tickwire_engine.randomness import TickRandom
from tickwire_engine.resources import ResourceRegistry, Resources, Snapshot
from tickwire_engine.results import CommandResults
from tickwire_engine.sql import SqlProcessor
from tickwire_engine.submission import Receipt, Submission
from tickwire_engine.tick.pipeline import CommittedTick
from tickwire_engine.world import AsyncWorld

__all__ = [
    # Worlds
    "AsyncWorld",
    "CommittedTick",
    "Engine",
    "EngineSetup",
    # What they are made of
    "Component",
    "ComponentCatalog",
    "ComponentType",
    "Mailbox",
    "ResourceRegistry",
    "Resources",
    "Snapshot",
    "TickRandom",
    # What moves them
    "ArrowProcessor",
    "AsyncProcessor",
    "BaseProcessor",
    "ProcessorRegistry",
    "SqlProcessor",
    # What is sent to them
    "ActorCtx",
    "Command",
    "CommandBroker",
    "CommandResults",
    "CommandType",
    "Receipt",
    "Submission",
    # Configuration and errors
    "ForkConfig",
    "RunConfig",
    "StorageConfig",
    "TickwireError",
    "WorldConfig",
]
