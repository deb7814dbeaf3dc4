"""`fedpt fleet …` as a person calls it."""

import json
import subprocess
import sys

import pytest


@pytest.fixture
def run(tmp_path):
    def run(*words, code=0, passphrase="correct horse"):
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "COLUMNS": "200"}
        if passphrase:
            environment["FEDPT_PASSPHRASE"] = passphrase
        done = subprocess.run(
            [sys.executable, "-m", "fedpt.cli", "fleet", *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.mark.slow
def test_init_list_and_add_as_far_as_they_go_without_a_server(run, tmp_path):
    assert "run its install.sh there as root" in run("init", "--host", "127.0.0.1").stdout
    assert (tmp_path / "fleet" / "fleet.json").is_file()
    assert "no boards yet" in run("list", "--offline").stdout
    listed = run("list")
    assert "no answer from the enrolment service" in listed.stderr
    missing = run("add", "kitchen", "--board", "rpi5", code=1)
    assert "fedpt fleet release model" in missing.stderr
    (tmp_path / "first.jsonl").write_text('{"instruction": "a", "response": "b"}\n{broken\n')
    first = ("add", "kitchen", "--board", "rpi5", "--examples", "first.jsonl")
    assert "first.jsonl, line 2: not JSON" in run(*first, code=1).stderr
    assert "learns from no examples" in run(*first, "--answers-only", code=1).stderr
    assert run("add", "kitchen", "--board", "toaster", code=2).stderr.count("\n") == 1
    assert "is a name of the server's own" in run("add", "broker", "--board", "rpi5", code=2).stderr
    assert "say what board it is" in run("add", "kitchen", code=2).stderr
    worker = run("add", "worker-2", "--board", "worker")
    assert "fedpt coordinator worker" in worker.stdout
    rows = json.loads(run("list", "--offline", "--json").stdout)
    assert [(row["name"], row["state"]) for row in rows] == [("worker-2", "ready key")]
    assert "copy fleet/devices/worker-2/worker to the machine" in run("rotate", "services").stdout
    assert "every board needs a new token" in run("rotate", "authority").stdout
    assert "copy fleet/server to the server" in run("rotate", "adapter").stdout
    refused = run("rotate", "release", code=1, passphrase="wrong horse")
    assert refused.stderr.count("\n") == 1
    gone = run("remove", "worker-2", code=1)
    assert "no answer from the enrolment service" in gone.stderr
    rows = json.loads(run("list", "--offline", "--json").stdout)
    assert rows[0]["state"] == "ready key", "what the server has not heard has not happened"


@pytest.mark.slow
def test_what_cannot_work_is_one_line(run, tmp_path):
    assert "name the server: --host" in run("init", code=2).stderr
    for host in ("hüb.local", "hub local", "hub:8883", ""):
        assert "not a server's name or address" in run("init", "--host", host, code=2).stderr
    short = run("init", "--host", "h", code=2, passphrase="short")
    assert "a passphrase of 5 characters; 8 at least" in short.stderr
    asked = run("init", "--host", "h", code=2, passphrase="")
    assert "no terminal to ask for the fleet's passphrase: set FEDPT_PASSPHRASE" in asked.stderr
    assert "no fleet in fleet; make one" in run("list", code=1).stderr
    assert list(tmp_path.iterdir()) == []
