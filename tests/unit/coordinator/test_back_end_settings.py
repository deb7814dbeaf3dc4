"""Which settings of a worker's back end go together."""

from pathlib import Path

import pytest

from coordinator.settings import CoordinatorSettings
from fedpt.errors import SettingsError
from fedpt.settings import load

LEAST = 'state_dir = "s"\nsmall = "s"\nlarge = "l"\nevaluation = "e"\npublic = "p"\n'


def settings(folder: Path, lines: str) -> CoordinatorSettings:
    path = folder / "coordinator.toml"
    path.write_text(f"{LEAST}[worker.large]\n{lines}")
    return load(CoordinatorSettings, toml=path, prefix="FEDPT_COORDINATOR", environment={})


@pytest.mark.parametrize(
    "lines",
    [
        "",
        'kind = "transformers"\npath = "models/large"\ndevice_map = "auto"\n',
        'kind = "vllm"\nurl = "http://gpu:8000"\nmodel = "large"\ndrafts = "prompt_logprobs"\n',
        'kind = "vllm"\nurl = "http://gpu:8000"\nmodel = "large"\ntop = 1024\n',
        'kind = "llama-server"\nurl = "http://[::1]:8080/v1"\napi_key_file = "key"\n',
        'kind = "openai"\nurl = "https://api.example"\nmodel = "m"\ntoken_prompts = true\n',
    ],
)
def test_back_ends_that_can_be(tmp_path: Path, lines: str) -> None:
    found = settings(tmp_path, lines)
    assert CoordinatorSettings.model_validate_json(found.model_dump_json()) == found


def test_paths_are_taken_from_the_files_own_folder(tmp_path: Path) -> None:
    lines = 'kind = "vllm"\nurl = "http://gpu"\nmodel = "m"\napi_key_file = "k"\ntokenizer = "t"\n'
    large = settings(tmp_path, lines).worker.large
    assert (large.api_key_file, large.tokenizer) == (tmp_path / "k", tmp_path / "t")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('kind = "tgi"\n', "worker.large.kind = 'tgi'"),
        ('kind = "transformers"\n', "kind = 'transformers' needs path"),
        ('kind = "vllm"\n', "needs url; kind = 'vllm' needs model"),
        ('kind = "openai"\nurl = "http://x"\n', "kind = 'openai' needs model"),
        ('url = "http://x"\n', "url does nothing with kind = 'llama.cpp'"),
        ('kind = "transformers"\npath = "m"\ntop = 5\n', "top does nothing with kind = 'trans"),
        ('kind = "llama-server"\nurl = "gpu:8080"\n', "url = 'gpu:8080': an address such as"),
        ('kind = "llama-server"\nurl = "http://me:s3@gpu"\n', "url: no user name or password"),
        ('kind = "openai"\nurl = "http://x"\nmodel = "m"\ntop = 21\n', "top = 21: .* 20 at most"),
        ('kind = "vllm"\nurl = "http://x"\nmodel = "m"\ntimeout_s = 0\n', "timeout_s = 0"),
        ('kind = "vllm"\nurl = "http://[x"\nmodel = "m"\n', "worker.large"),
    ],
)
def test_back_ends_that_cannot_be_are_refused_in_one_line(
    tmp_path: Path, lines: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        settings(tmp_path, lines)
    assert "\n" not in str(caught.value)
    assert "s3" not in str(caught.value)
