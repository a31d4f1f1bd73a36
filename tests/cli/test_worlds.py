"""`tickwire worlds change` and `rm`."""

from tickwire import new_id

from .conftest import Run


def test_a_world_is_renamed_labelled_and_told_what_to_keep(cli: Run, world: str):
    name = f"n-{new_id()}"
    changed = cli(
        "worlds", "change", world, "--name", name, "-l", "team=a", "--keep-every", 10, "--json"
    ).document
    assert (changed["name"], changed["labels"], changed["keep_every"]) == (name, {"team": "a"}, 10)
    assert changed["keep_ticks"] == 100_000, "what is not named stays as it is"
    said = cli("worlds", "change", name, "--keep-ticks", 500)
    assert "team=a; keeps the newest 500 ticks and each 10th" in said.out
    bare = cli("worlds", "change", name, "--no-labels")
    assert "no labels" in bare.out
    assert cli("worlds", "show", world).code == 1


def test_a_change_of_a_world_that_was_changed_since_is_refused(cli: Run, world: str):
    refused = cli("worlds", "change", world, "--no-labels", "--etag", "stale", "--json")
    assert refused.code == 1
    assert "ETAG_MISMATCH" in refused.err


def test_a_change_of_nothing_is_a_mistake_of_usage(cli: Run, world: str):
    assert cli("worlds", "change", world).code == 2
    assert cli("worlds", "change", world, "-l", "a=b", "--no-labels").code == 2


def test_a_world_is_destroyed_when_that_is_meant(cli: Run, world: str):
    unsure = cli("worlds", "rm", world)
    assert (unsure.code, "--yes" in unsure.err) == (2, True)
    ended = cli("worlds", "rm", world, "--yes", "--json").document
    assert (ended["name"], ended["state"]) == (world, "destroyed")
    assert cli("worlds", "rm", world, "--yes").code == 1
    assert cli("worlds", "show", ended["id"], "--json").document["state"] == "destroyed"
