"""Settings of libraries that are read when they are imported; this module is imported before them.

Daft reports its use over the network at import and with every plan, in a blocking call: not from a simulation.
"""

from __future__ import annotations

import os

os.environ.setdefault("DO_NOT_TRACK", "1")
