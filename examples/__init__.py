"""Worlds to try Tickwire with; run from the root of the source tree."""
