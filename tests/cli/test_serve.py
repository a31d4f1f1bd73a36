"""`tickwire serve` as a process: how it starts, what it refuses, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tickwire import Client
from tickwire_server.cli._process import FIXED, environment
from tickwire_server.cli.server_process import ServerProcess, ServerProcessError


def serve(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a server that is expected to refuse."""
    return subprocess.run(
        [sys.executable, "-m", "tickwire_server.cli", "serve", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **variables},
        timeout=60,
        check=False,
    )


def test_a_restarted_server_serves_what_it_had(line_app: Path, tmp_path: Path):
    with ServerProcess(tmp_path / "data", app="line_app:app", root=line_app) as server:
        address = server.address
        with Client(address) as client:
            client.create_world("kept", template="three").step(5)
        server.restart()
        assert server.address == address
        with Client(address) as client:
            assert client.world("kept").info().tick == 5


def test_a_watcher_sees_every_tick_once_over_a_restart(line_app: Path, tmp_path: Path):
    with ServerProcess(tmp_path / "data", app="line_app:app", root=line_app) as server:
        with Client(server.address) as client:
            client.create_world("watched", template="three").step(3)
        watcher = subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "tickwire_server.cli",
                    "watch",
                    "watched",
                    "--server",
                    server.address,
                ),
                *("--from-tick", "0", "--until-tick", "5", "--json"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert watcher.stdout is not None
        seen = [watcher.stdout.readline() for _ in range(3)]
        server.restart()
        with Client(server.address) as client:
            client.world("watched").step(3)
        seen += watcher.stdout.readlines()
        watcher.stdout.close()
        assert watcher.wait(30) == 0
    assert [json.loads(line)["tick"] for line in seen] == [0, 1, 2, 3, 4, 5]


def test_sigterm_ends_it_in_order(line_app: Path, tmp_path: Path):
    server = ServerProcess(tmp_path / "data", app="line_app:app", root=line_app).start()
    with Client(server.address) as client:
        client.create_world("played", template="three").play()
        assert server.terminate() == 0
    assert "stopped" in server.log.read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("layout", ["text", "json"])
def test_a_log_that_cannot_be_written_stops_nothing(line_app: Path, tmp_path: Path, layout: str):
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tickwire_server.cli", "serve", "--app", "line_app:app", "--json"),
                *("--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0"),
                *(["--log-json"] if layout == "json" else []),
            ],
            stdout=subprocess.PIPE,
            stderr=full,
            cwd=line_app,
            env={**os.environ, "PYTHONPATH": str(line_app)},
        )
    assert process.stdout is not None
    with Client(json.loads(process.stdout.readline())["serving"]) as client:
        client.create_world("logged", template="three").step(1)
    process.send_signal(signal.SIGTERM)
    process.stdout.close()
    assert process.wait(30) == 0


def test_it_ends_with_its_parent(line_app: Path, tmp_path: Path):
    script = (
        "import os, sys, signal\n"
        "from pathlib import Path\n"
        "from tickwire_server.cli.server_process import ServerProcess\n"
        "server = ServerProcess(Path(sys.argv[1])).start()\n"
        "print(server.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    parent = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "data")],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert parent.returncode == -signal.SIGKILL
    # A second server gets the data only once the first has left it.
    with ServerProcess(tmp_path / "data", arguments=("--wait-for-data", "30")) as second:
        assert second.pid != int(parent.stdout)


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("line_app", "should look like package.module:app"),
        ("line_app:missing", "'missing' in line_app does not exist; its apps: app"),
        ("line_app:not_an_app", "is a int, no App"),
        ("no_such_module:app", "no module 'no_such_module'"),
    ],
)
def test_an_app_that_is_not_there_is_wrong_usage(line_app: Path, tmp_path: Path, app: str, said: str):
    refused = serve("--app", app, "--data", tmp_path / "data", cwd=line_app, COLUMNS="300")
    assert refused.returncode == 2
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "data").exists()


def test_an_app_that_fails_to_import_is_told_with_its_place(tmp_path: Path):
    (tmp_path / "broken.py").write_text("import line_app_of_nobody\n")
    (tmp_path / "worse.py").write_text("\n1 / 0\n")
    for module, said in (("broken", "line_app_of_nobody"), ("worse", "worse.py, line 2")):
        refused = serve("--app", f"{module}:app", "--data", tmp_path / "data", cwd=tmp_path)
        assert refused.returncode == 1
        assert said in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_taken_port_is_told_in_a_line(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = serve("--listen", address, "--data", tmp_path / "data", cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith(f"error: cannot listen on {address}")


def test_data_in_use_is_told_with_who_uses_it(tmp_path: Path):
    with ServerProcess(tmp_path / "data") as first:
        told = f"is served by process {first.pid} on .* since 20.*, at {first.address}: stop that one"
        with pytest.raises(ServerProcessError, match=told):
            ServerProcess(tmp_path / "data").start()
        refused = serve("--listen", "127.0.0.1:0", "--data", first.data, cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    "content", ["listens = 'x'", "ring_bytes = 'many'", "= nonsense"], ids=["unknown", "mistyped", "no TOML"]
)
def test_a_wrong_setting_is_wrong_usage(tmp_path: Path, content: str):
    (tmp_path / "tickwire.toml").write_text(content)
    refused = serve("--config", "tickwire.toml", cwd=tmp_path)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr


def test_other_machines_are_not_served_unless_asked_to(tmp_path: Path):
    refused = serve("--listen", "0.0.0.0:0", "--data", tmp_path / "data", cwd=tmp_path)
    assert refused.returncode == 1
    assert "--insecure" in refused.stderr


def test_a_server_gives_itself_the_environment_it_needs(tmp_path: Path):
    (tmp_path / "witness.py").write_text(
        "import os\n"
        "from pathlib import Path\n"
        "from tickwire_server import App\n"
        "app = App('witness')\n"
        "Path('seen').write_text('\\n'.join(f'{k}={v}' for k, v in os.environ.items()))\n"
    )
    lacking = {name: value for name, value in os.environ.items() if name not in FIXED}
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tickwire_server.cli", "serve", "--json"),
            *("--app", "witness:app", "--listen", "127.0.0.1:0", "--data", "data"),
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=lacking | {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "random"},
    )
    assert process.stdout is not None
    assert f'"pid": {process.pid}' in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    process.stdout.close()
    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines() if "=" in line)
    assert seen["PYTHONHASHSEED"] == "0"
    assert seen["DO_NOT_TRACK"] == "1"
    assert seen["OMP_NUM_THREADS"] == "2"


def test_an_environment_that_is_right_stays_as_it_is():
    once = environment({"HOME": "/root", "PYTHONHASHSEED": "5"})
    assert environment(once) == once
    assert once["PYTHONHASHSEED"] == "5"


def test_an_address_that_is_none_is_wrong_usage(tmp_path: Path):
    refused = serve("--listen", "nonsense", cwd=tmp_path)
    assert refused.returncode == 2
    assert "setting listen" in refused.stderr
