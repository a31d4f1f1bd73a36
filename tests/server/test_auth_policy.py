"""The table of roles: every RPC has its place in it, and a file that replaces it is read with care."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickwire_engine import CommandType
from tickwire_engine.errors import InvalidRequestError
from tickwire_server.auth.globs import WorldGlobs, check_globs
from tickwire_server.auth.policy import DEFAULT, IDENTIFIED, KNOWN_RPCS, OPEN, Policy
from tickwire_server.grpc.routing import SERVICES

if TYPE_CHECKING:
    from pathlib import Path

CONTRACT_RPCS = {f"{service.name}.{method.name}" for service in SERVICES for method in service.methods}
ROLES = ("viewer", "player", "operator", "admin")
T = CommandType


def test_every_rpc_of_the_contract_has_its_place_in_the_policy():
    assert CONTRACT_RPCS <= KNOWN_RPCS | OPEN | IDENTIFIED


def test_the_policy_names_no_rpc_twice():
    named = [rpc for role in DEFAULT for rpc in role.rpcs]
    assert len(named) == len(set(named))
    assert not KNOWN_RPCS & (OPEN | IDENTIFIED)


def test_each_role_has_all_that_the_one_before_has():
    policy = Policy()
    for less, more in pairwise(ROLES):
        inner, outer = policy.permissions((less,)), policy.permissions((more,))
        assert outer.covers(inner)
        assert not inner.covers(outer)


@pytest.mark.parametrize(
    ("kind", "least"),
    [
        *((kind, "player") for kind in (T.SPAWN, T.DESPAWN, T.UPDATE, T.MESSAGE, T.CUSTOM, T.QUERY_WORLD)),
        *((kind, "operator") for kind in (T.ADD_COMPONENT, T.REMOVE_COMPONENT, T.ADD_PROCESSOR)),
        *((kind, "operator") for kind in (T.REMOVE_PROCESSOR, T.SET_RESOURCE, T.REMOVE_RESOURCE)),
        *((kind, "operator") for kind in (T.FORK_WORLD, T.RUN_ROLLOUT, T.RUN_EPISODE)),
        *((kind, "admin") for kind in (T.CREATE_WORLD, T.DESTROY_WORLD)),
    ],
)
def test_command_types_belong_to_the_roles_of_the_contract(kind: CommandType, least: str):
    assert Policy().least_for_command(kind) == least


def test_only_operators_and_admins_see_others():
    assert [Policy().permissions((role,)).others for role in ROLES] == [False, False, True, True]


def test_a_role_that_is_none_gives_nothing():
    given_nothing = Policy().permissions(("god", ""))
    assert not given_nothing.rpcs
    assert not given_nothing.commands


def test_a_file_replaces_the_whole_table(tmp_path: Path):
    path = tmp_path / "policy.toml"
    path.write_text(
        "[roles.watcher]\nrpcs = ['TickService.*', 'WorldService.GetWorld']\n"
        "[roles.pilot]\nincludes = ['watcher']\ncommands = ['update']\n"
        "[roles.chief]\nincludes = ['pilot']\nrpcs = ['*']\ncommands = ['*']\nothers = true\n"
    )
    policy = Policy.load(path)
    assert policy.names == ("watcher", "pilot", "chief")
    assert policy.permissions(("pilot",)).rpcs == {
        "TickService.Subscribe",
        "TickService.ListTicks",
        "WorldService.GetWorld",
    }
    assert policy.permissions(("pilot",)).commands == {T.UPDATE}
    assert policy.permissions(("chief",)).rpcs == KNOWN_RPCS
    assert policy.permissions(("chief",)).commands == frozenset(T)
    assert policy.least_for_rpc("AuthService.CreateToken") == "chief"
    assert not policy.permissions(("admin",)).rpcs


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "expects tables"),
        ("[roles]", "expects tables"),
        ("colour = 1\n[roles.a]", "colour"),
        ("[roles.a]\nrpc = []", "known are includes, rpcs"),
        ("[roles.a]\nrpcs = ['WorldService.Fly']", "'WorldService.Fly' is none of"),
        ("[roles.a]\nrpcs = ['FlyService.*']", "'FlyService.*' is none of"),
        ("[roles.a]\ncommands = ['fly']", "'fly' is none of"),
        ("[roles.a]\nrpcs = 'WorldService.*'", "no list of strings"),
        ("[roles.a]\nothers = 'yes'", "neither true nor false"),
        ("[roles.a]\nincludes = ['b']", "'b', which is no role"),
        ("[roles.a]\nincludes = ['b']\n[roles.b]\nincludes = ['a']", "includes itself (a -> b -> a)"),
        ("[roles", "policy"),
        ("roles = 3", "expects tables"),
        ("[roles]\na = 3", "is no table"),
    ],
)
def test_a_wrong_policy_file_is_told_with_its_place(tmp_path: Path, content: str, said: str):
    path = tmp_path / "policy.toml"
    path.write_text(content)
    with pytest.raises(InvalidRequestError) as refused:
        Policy.load(path)
    assert said in refused.value.message


def test_a_policy_file_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(InvalidRequestError, match="No such file"):
        Policy.load(tmp_path / "none.toml")


NAMES = st.text("ab-1", min_size=1, max_size=6).map(lambda rest: f"a{rest}")
GLOBS = st.text("ab-1*?", min_size=1, max_size=5)


@given(outer=st.lists(GLOBS, max_size=3), inner=GLOBS, name=NAMES)
@settings(max_examples=50, deadline=None)
def test_what_a_covered_glob_matches_its_cover_matches_too(outer: list[str], inner: str, name: str):
    cover = WorldGlobs(outer)
    if cover.covers(inner) and WorldGlobs([inner]).match(name):
        assert cover.match(name)


def test_no_globs_match_no_world():
    assert not WorldGlobs(()).match("w")
    assert not WorldGlobs(()).match("")


@pytest.mark.parametrize("glob", ["", "A*", "a b", "a/b", "x" * 200, "é"])
def test_what_is_no_glob_of_world_names_is_refused(glob: str):
    with pytest.raises(InvalidRequestError) as refused:
        check_globs(["ok-*", glob], field="worlds")
    assert refused.value.field == "worlds[1]"
