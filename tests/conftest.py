"""What all tests share: property tests draw the same examples in every run, so that a green run stays green.

`make torture` draws new ones, to find what these miss; what it finds becomes a test of its own.
"""

from __future__ import annotations

import os

from hypothesis import settings
from hypothesis.internal.conjecture import providers

# Servers of tests take free ports; those that look at metrics say which.
os.environ.setdefault("TICKWIRE_METRICS", "")

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("new", derandomize=False, deadline=None, print_blob=True)
settings.load_profile("same")

# Hypothesis draws constants of every module that is loaded by then: what is drawn would hang on which tests ran before.
assert callable(providers._get_local_constants)
providers._get_local_constants = lambda: providers._local_constants
