"""What an operator can write, and what is refused."""

from pathlib import Path

import pytest

from coordinator.settings import ENVIRONMENT_PREFIX, CoordinatorSettings
from fedpt.errors import SettingsError
from fedpt.settings import load

LEAST = """
state_dir = "state"
small = "small.gguf"
large = "large.gguf"
evaluation = "evaluation.jsonl"
public = "public.jsonl"
"""


def read(folder: Path, more: str = "", **environment: str) -> CoordinatorSettings:
    path = folder / "coordinator.toml"
    path.write_text(LEAST + more)
    return load(CoordinatorSettings, toml=path, prefix=ENVIRONMENT_PREFIX, environment=environment)


def test_files_are_all_that_must_be_said(tmp_path: Path) -> None:
    settings = read(tmp_path)
    assert settings.state_dir == tmp_path / "state"
    assert (settings.federation, settings.rounds, settings.devices_per_round) == ("home", 3, None)
    assert settings.adapter.target_modules is None


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    name = f"{ENVIRONMENT_PREFIX}_DISTILLATION__ENABLED"
    settings = read(tmp_path, "[distillation]\nenabled = true\n", **{name: "false"})
    assert not settings.distillation.enabled


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("rounds = 0", "rounds = 0: "),
        ('federation = "a/b"', "federation = 'a/b': "),
        ('federation = "+"', r"federation = '\+': "),
        ("round = 3", "round: unknown setting"),
        ("round_deadline_s = 0", "round_deadline_s = 0: "),
        ("[worker]\nsessions = 65", "worker.sessions = 65: "),
        ("[adapter]\nrank = 0", "adapter.rank = 0: "),
        ("[adapter]\ntarget_modules = []", "adapter.target_modules"),
        ('[training]\nschedule = "steps"', "training.schedule = 'steps': "),
        ("[training]\nwarmup_share = 1.5", "training.warmup_share = 1.5: "),
        ("[training]\nweight_decay = -1", "training.weight_decay = -1: "),
        ("[training]\nproximal = inf", "training.proximal = inf: "),
        ("[evaluating]\nstop_at_nll = 0", "evaluating.stop_at_nll = 0: "),
        ("devices_per_round = 0", "devices_per_round = 0: "),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read(tmp_path, line)


def test_settings_survive_the_file_for_the_worker_process(tmp_path: Path) -> None:
    settings = read(tmp_path)
    assert CoordinatorSettings.model_validate_json(settings.model_dump_json()) == settings
