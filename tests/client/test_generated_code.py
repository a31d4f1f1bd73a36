"""The generated code is what the protos say, and the protos are what v1 promises.

The first test makes the compiler's environment when it is not there, which needs the package index once.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from google.protobuf import descriptor_pool, json_format

from tickwire.v1 import command_pb2, error_reason_pb2

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos" / "tickwire" / "v1"
GENERATED = ROOT / "client" / "tickwire" / "v1"
PROTO_FILES = sorted(PROTOS.glob("*.proto"))

# The contract's table of errors: the reasons of each gRPC code, in the order of their numbers.
REASONS = """
    INVALID_ARGUMENT: INVALID_REQUEST INVALID_NAME INVALID_COMMAND COMMAND_TYPE_MISMATCH
        UNKNOWN_COMPONENT UNKNOWN_PROCESSOR_TYPE UNKNOWN_CUSTOM_COMMAND SCHEMA_MISMATCH INVALID_ARROW
        INVALID_SQL INVALID_PAGE_TOKEN
    NOT_FOUND: WORLD_NOT_FOUND ENTITY_NOT_FOUND COMPONENT_NOT_FOUND PROCESSOR_NOT_FOUND
        RESOURCE_NOT_FOUND TEMPLATE_NOT_FOUND COMMAND_NOT_FOUND TOKEN_NOT_FOUND
    ALREADY_EXISTS: WORLD_EXISTS COMMAND_ID_REUSED PROCESSOR_EXISTS COMPONENT_EXISTS
    UNAUTHENTICATED: TOKEN_MISSING TOKEN_INVALID TOKEN_EXPIRED TOKEN_REVOKED
    PERMISSION_DENIED: ROLE_FORBIDS WORLD_FORBIDDEN
    RESOURCE_EXHAUSTED: QUOTA_TICK QUOTA_DAY QUEUE_FULL STREAM_LIMIT CONNECTION_LIMIT WORLD_FULL
        WORLD_LIMIT MESSAGE_TOO_LARGE RESULT_TOO_LARGE
    FAILED_PRECONDITION: WORLD_FAULTED WORLD_PLAYING WORLD_RUNNING WORLD_DESTROYED COMMAND_NOT_PENDING
        TICK_IN_THE_PAST TICK_MISMATCH ETAG_MISMATCH COMMAND_ID_TOO_OLD CUSTOM_REFUSED
    OUT_OF_RANGE: TICK_NOT_KEPT TICK_IN_THE_FUTURE
    ABORTED: PROCESSOR_FAILED SUBSCRIBER_TOO_SLOW
    UNAVAILABLE: STORAGE_FAILED STARTING SHUTTING_DOWN
    DATA_LOSS: HISTORY_CORRUPT
    INTERNAL: INTERNAL
    UNIMPLEMENTED: FEATURE_OFF
"""

# The values of each enum from 1 on, in the order of their numbers.
ENUMS = """
    CommandType: SPAWN DESPAWN UPDATE ADD_COMPONENT REMOVE_COMPONENT ADD_PROCESSOR REMOVE_PROCESSOR
        CREATE_WORLD DESTROY_WORLD FORK_WORLD RUN_ROLLOUT RUN_EPISODE QUERY_WORLD MESSAGE CUSTOM
        SET_RESOURCE REMOVE_RESOURCE
    CommandState: PENDING APPLIED REJECTED CANCELLED
    WaitLevel: ACCEPTED APPLIED ARCHIVED
    CommandView: BASIC FULL
    WorldState: IDLE RUNNING PLAYING FAULTED DESTROYED
    Compression: NONE LZ4 ZSTD
    ComponentOrigin: APP RPC
    ProcessorPath: FAST DAFT ARROW SQL
    StartAt: LATEST SNAPSHOT EARLIEST
    TickMode: FULL CHANGES
    LagPolicy: CATCH_UP SKIP_TO_LATEST DISCONNECT
    OutcomeScope: MINE ALL
    Format: ARROW ROWS
"""

# The messages that are kept on disk or streamed: stored bytes rest on these numbers.
FIELDS = """
    Command: id=1 tick=2 actor_id=3 type=4 priority=5 version=6 seq=7
    Despawn: entity_ids=1 where=2 skip_missing=6
    Update: entity_ids=1 where=2 components=3 table=4 skip_missing=6
    AddComponent: entity_ids=1 where=2 components=3 table=4 skip_missing=6
    RemoveComponent: entity_ids=1 where=2 components=3 skip_missing=6
    CommandOutcome: command_id=1 seq=2 state=3 tick=4 error=5 first_entity_id=6 entity_count=7
        world_id=8 table=9 value=10 outcome_seq=11 table_bytes=12 missing_entity_ids=13
    CommandReceipt: command_id=1 seq=2 due_tick=3 first_entity_id=4 entity_count=5 duplicate=6 outcome=7
        error=8
    World: id=1 name=2 tick=3 run_id=4 state=5 entities=6 archetypes=7 parent_id=8 fork_tick=9 seed=10
        created_at=11 fault=12 labels=13 retention=14 pending_commands=15 etag=16 earliest_tick=17 hz=18
        max_entities=20 archived_tick=21 fault_status=22
    RunRolloutResponse: branch=1 name=2 last_tick=3 table=4 world_id=5 stopped=6 error=7 score=8 rejected=9
    SubscribeRequest: world=1 from_tick=2 at=3 components=4 where=5 mode=6 compression=7
        max_message_bytes=8 lag=9 every=10 with_outcomes=11 heartbeat=12 until_tick=13 outcome_scope=14
    TickChunk: tick=1 index=2 last=3 batches=4 summary=5 despawned=6 snapshot=7 skipped=8 outcomes=9
    ArchetypeBatch: stream=1 schema=2 batch=3 rows=4 archetype=5
    TickSummary: run_id=1 entities=2 rows=3 spawned=4 despawned=5 commands_applied=6 commands_rejected=7
        state_hash=8 committed_at=9 tick=13 compute=14 hz=15
    QueryRequest: world=1 at_tick=2 ticks=3 components=4 where=5 entity_ids=6 limit=7 compression=8
        format=9
"""

# Where 0 is a value of its own, absence is told apart from it.
EXPLICIT_PRESENCE = """
    AddProcessor: priority
    Command: tick
    Branch: seed
    CreateWorld: seed
    CreateWorldRequest: seed
    Field: nullable
    ForkWorld: at_tick seed
    ForkWorldRequest: at_tick seed
    GetEntityRequest: at_tick
    ListTicksRequest: from_tick to_tick
    PlayRequest: expected_tick
    Retention: keep_bytes
    RunRequest: expected_tick
    RunRollout: at_tick seed
    SqlRequest: at_tick
    StepRequest: expected_tick
    SubscribeRequest: until_tick
    WatchOutcomesRequest: after_outcome_seq
"""


def test_the_committed_code_is_what_the_protos_generate(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "protos" / "generate.py"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, timeout=170)
    fresh = {path.name: path.read_bytes() for path in (tmp_path / "tickwire" / "v1").iterdir()}
    committed = {path.name: path.read_bytes() for path in GENERATED.glob("*_pb2*.py*")}
    assert sorted(fresh) == sorted(committed)
    assert [name for name in sorted(fresh) if fresh[name] != committed[name]] == []


def test_every_generated_module_imports_under_its_protos_path() -> None:
    modules = sorted(path.stem for path in GENERATED.glob("*_pb2*.py"))
    assert [name for name in modules if name.endswith("_pb2")] == [f"{path.stem}_pb2" for path in PROTO_FILES]
    for name in modules:
        importlib.import_module(f"tickwire.v1.{name}")


def test_the_code_asks_for_no_newer_runtime_than_the_distribution_does() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    message_module = (GENERATED / "command_pb2.py").read_text()
    stub_module = (GENERATED / "command_service_pb2_grpc.py").read_text()
    generator = re.search(r"Protobuf Python Version: ([\d.]+)", message_module)
    grpc = re.search(r"GRPC_GENERATED_VERSION = '([\d.]+)'", stub_module)
    assert generator is not None
    assert grpc is not None
    assert as_version(generator[1]) <= as_version(required(project, "protobuf"))
    assert as_version(grpc[1]) <= (*as_version(required(project, "grpcio")), 0)


@pytest.mark.parametrize("source", PROTO_FILES, ids=lambda path: path.name)
def test_a_comment_begins_with_the_name_of_what_it_is_about(source: Path) -> None:
    lines = source.read_text().splitlines()
    declaration = re.compile(
        r"\s*(?:rpc (\w+)|(?:message|enum|service|oneof) (\w+)|(?:[\w.<>, ]+ )?(\w+) = \d+;)"
    )
    unnamed = []
    for number, line in enumerate(lines):
        found = declaration.match(line)
        if found is None or line.startswith("option"):
            continue
        first = number
        while lines[first - 1].lstrip().startswith("//"):
            first -= 1
        name = next(group for group in found.groups() if group)
        if not re.match(rf"\s*// {name}\b", lines[first]):
            unnamed.append(f"{source.name}:{number + 1} {name}")
    assert unnamed == []


def test_every_reason_of_the_contract_is_there_in_its_order() -> None:
    reasons = [reason for row in rows(REASONS).values() for reason in row]
    assert dict(error_reason_pb2.ErrorReason.items()) == numbered("ErrorReason", reasons)


def test_every_reason_shows_its_code_an_example_and_the_remedy() -> None:
    source = (PROTOS / "error_reason.proto").read_text()
    comments = {
        found[2]: re.sub(r"\n\s*//", " ", found[1])
        for found in re.finditer(r"((?:  //[^\n]*\n)+)  ERROR_REASON_(\w+) = [1-9]\d*;", source)
    }
    for code, reasons in rows(REASONS).items():
        for reason in reasons:
            comment = comments[reason]
            example, _ = json.JSONDecoder().raw_decode(comment, comment.index('{"reason"'))
            assert (example["reason"], example["domain"]) == (reason, "tickwire")
            assert re.search(rf"Code {code}\b.* Remedy: \w", comment), reason


def test_every_command_type_has_the_payload_of_its_name() -> None:
    payloads = command_pb2.Command.DESCRIPTOR.oneofs_by_name["payload"].fields
    types = {
        name.removeprefix("COMMAND_TYPE_").lower(): n for name, n in command_pb2.CommandType.items() if n
    }
    assert {field.name: field.number - 9 for field in payloads} == types


def test_the_enums_have_the_values_of_the_contract() -> None:
    found = {
        enum.name: {value.name: value.number for value in enum.values}
        for file in contract_files()
        for enum in file.enum_types_by_name.values()
        if enum.name != "ErrorReason"
    }
    assert found == {name: numbered(name, values) for name, values in rows(ENUMS).items()}


def test_the_messages_keep_the_field_numbers_of_the_contract() -> None:
    messages: dict[str, Descriptor] = {}
    for file in contract_files():
        messages |= file.message_types_by_name
    for name, fields in rows(FIELDS).items():
        numbers = [f"{field.name}={field.number}" for field in messages[name].fields if not in_payload(field)]
        assert numbers == fields, name


def test_zero_and_absent_differ_exactly_where_zero_is_a_value() -> None:
    found: dict[str, list[str]] = {}
    for file in contract_files():
        for message in file.message_types_by_name.values():
            for field in message.fields:
                if field.containing_oneof is not None and field.containing_oneof.name == f"_{field.name}":
                    found.setdefault(message.name, []).append(field.name)
    assert found == rows(EXPLICIT_PRESENCE)


def test_every_rpc_has_a_request_and_a_response_of_its_own() -> None:
    services = [service for file in contract_files() for service in file.services_by_name.values()]
    assert len(services) == 7
    for service in services:
        for method in service.methods:
            assert method.input_type.name == f"{method.name}Request"
            assert method.output_type.name == f"{method.name}Response"


def test_a_spawn_can_be_typed_by_hand_as_json() -> None:
    text = '{"spawn": {"components": {"Position": {"x": 1}}}}'
    command = json_format.Parse(text, command_pb2.Command())
    assert command.WhichOneof("payload") == "spawn"
    assert json_format.MessageToDict(command.spawn.components) == {"Position": {"x": 1.0}}


def contract_files() -> list[FileDescriptor]:
    """Returns the descriptors of all files of the contract, loaded.

    Returns:
        One descriptor for each proto file, in the order of their names.
    """
    for path in PROTO_FILES:
        importlib.import_module(f"tickwire.v1.{path.stem}_pb2")
    return [descriptor_pool.Default().FindFileByName(f"tickwire/v1/{path.name}") for path in PROTO_FILES]


def in_payload(field: FieldDescriptor) -> bool:
    """Tells whether a field is one of a command's payloads, which the command types number.

    Args:
        field: A field of any message.

    Returns:
        Whether it lies in the oneof `payload`.
    """
    return field.containing_oneof is not None and field.containing_oneof.name == "payload"


def rows(table: str) -> dict[str, list[str]]:
    """Reads one of the tables above.

    Args:
        table: Lines of a name, a colon and words; further words may follow on deeper lines.

    Returns:
        The words by name, in order.
    """
    return {found[1]: found[2].split() for found in re.finditer(r"(\w+):([^:]*)(?=\n    \w|\n$)", table)}


def numbered(enum: str, names: list[str]) -> dict[str, int]:
    """Returns an enum's values: UNSPECIFIED, then the names from 1.

    Args:
        enum: The enum's name.
        names: The values' names without prefix, in order.

    Returns:
        The numbers by full name.
    """
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum).upper()
    return {f"{prefix}_{name}": number for number, name in enumerate(["UNSPECIFIED", *names])}


def required(project: str, distribution: str) -> str:
    """Returns the oldest version of a dependency that pyproject.toml allows.

    Args:
        project: The text of pyproject.toml.
        distribution: The dependency's name.

    Returns:
        The version as text.
    """
    found = re.search(rf'"{distribution}>=([\d.]+)', project)
    assert found is not None, distribution
    return found[1]


def as_version(text: str) -> tuple[int, ...]:
    """Returns a version that compares as a number.

    Args:
        text: The version as text, dotted numbers.

    Returns:
        Its numbers.
    """
    return tuple(int(part) for part in text.split("."))
