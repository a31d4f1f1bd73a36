"""Power cuts: a recorded run, cut off anywhere, with whatever was not synced lost."""
