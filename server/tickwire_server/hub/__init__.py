"""Fan-out: committed ticks, encoded once per distinct view, to any number of subscribers at their own pace."""

from tickwire_server.hub._frames import frame_of
from tickwire_server.hub.cursor import Cursor
from tickwire_server.hub.subscription import Pulse, Subscription
from tickwire_server.hub.tick_hub import HubThreads, TickEncoder, TickHub
from tickwire_server.hub.ticks import TickMessage
from tickwire_server.hub.view import Compression, LagPolicy, Selected, TickMode, View

__all__ = [
    "Compression",
    "Cursor",
    "HubThreads",
    "LagPolicy",
    "Pulse",
    "Selected",
    "Subscription",
    "TickEncoder",
    "TickHub",
    "TickMessage",
    "TickMode",
    "View",
    "frame_of",
]
