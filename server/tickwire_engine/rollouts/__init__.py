"""Rollouts: futures of a world, tried on branches that leave it as it is.

A branch shares the world's state and goes on from there by itself: its commands are applied, ticks are computed, and
the rows it ends with are told. It lives in memory and leaves nothing, unless it is to be kept: then it is a fork. An
episode is a rollout whose beginnings are drawn, which may stop early, and which has a score.
"""

from tickwire_engine.rollouts.plan import Branch, Rollout, parse_episode, parse_rollout
from tickwire_engine.rollouts.runner import BranchResult, RolloutLimits, Rollouts

__all__ = [
    "Branch",
    "BranchResult",
    "Rollout",
    "RolloutLimits",
    "Rollouts",
    "parse_episode",
    "parse_rollout",
]
