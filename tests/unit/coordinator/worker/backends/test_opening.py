"""Which back end the settings choose, and that its vocabulary is looked at first."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coordinator.settings import CoordinatorSettings
from coordinator.worker.backends.opening import open_large
from coordinator.worker.backends.ports import Large
from coordinator.worker.backends.vocabularies import vocabulary_of_folder
from fedpt.drivers.llama_runs import Run
from fedpt.errors import LargeModelError, ModelFileError, VocabularyMismatchError
from tests.fakes.model_servers import llama_server, scripted_server
from tests.fakes.tiny_federation import TinyFederation

pytestmark = pytest.mark.llama


def settings_for(tiny: TinyFederation, **large: object) -> CoordinatorSettings:
    return CoordinatorSettings.model_validate(
        {
            "state_dir": tiny.folder,
            "small": tiny.small,
            "large": tiny.large if large.get("kind") in (None, "llama.cpp") else "not-here.gguf",
            "evaluation": tiny.data,
            "public": tiny.data,
            "threads": 1,
            "worker": {"sessions": 2, "context_tokens": 128, "large": large},
        }
    )


@contextmanager
def opened(settings: CoordinatorSettings) -> Iterator[Large]:
    large = open_large(settings, context_tokens=128)
    try:
        yield large
    finally:
        large.close()


@pytest.fixture(scope="module")
def llama(tiny: TinyFederation) -> Iterator[str]:
    pytest.importorskip("xllamacpp", reason="no wheel with llama-server for this machine")
    with llama_server(tiny.large) as url:
        yield url


def swapped_tokenizer(folder: Path) -> Path:
    """Two of its tokens change places."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    by_id = {number: token for token, number in content["model"]["vocab"].items()}
    content["model"]["vocab"] |= {by_id[300]: 301, by_id[301]: 300}
    path.write_text(json.dumps(content))
    return folder


def test_by_default_it_is_the_gguf_file_in_this_process(tiny: TinyFederation) -> None:
    with opened(settings_for(tiny)) as large:
        assert large.gives_whole_rows
        assert len(large.vocabulary.tokens) == 384
        (told,) = large.context.evaluate([Run(1, 0, [5, 6], 2)])
        assert len(told) == 2  # type: ignore[arg-type]  # no error


def test_a_folder_of_transformers_has_whole_rows_too(tiny: TinyFederation) -> None:
    settings = settings_for(tiny, kind="transformers", path=tiny.large_folder)
    with opened(settings) as large:
        assert large.gives_whole_rows
        assert large.name == "large"


def test_a_folder_with_another_vocabulary_is_refused(tiny: TinyFederation, tmp_path: Path) -> None:
    folder = swapped_tokenizer(shutil.copytree(tiny.large_folder, tmp_path / "large"))
    with pytest.raises(VocabularyMismatchError, match="the first difference is token 300"):
        open_large(settings_for(tiny, kind="transformers", path=folder), context_tokens=128)


def test_a_server_is_asked_for_its_vocabulary(
    tiny: TinyFederation, llama: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level("INFO"),
        opened(settings_for(tiny, kind="llama-server", url=llama)) as large,
    ):
        assert not large.gives_whole_rows
        assert large.name == llama
    assert "of 384 tokens are the same" in caplog.text


def test_a_servers_tokenizer_can_be_compared_token_by_token(
    tiny: TinyFederation, llama: str, tmp_path: Path
) -> None:
    folder = swapped_tokenizer(shutil.copytree(tiny.large_folder, tmp_path / "tokenizer"))
    good = settings_for(tiny, kind="llama-server", url=llama, tokenizer=tiny.large_folder)
    with opened(good):
        pass
    bad = settings_for(tiny, kind="llama-server", url=llama, tokenizer=folder)
    with pytest.raises(VocabularyMismatchError, match="token 300"):
        open_large(bad, context_tokens=128)


def test_more_probabilities_than_the_server_has_are_all(tiny: TinyFederation, llama: str) -> None:
    with opened(settings_for(tiny, kind="llama-server", url=llama, top=1000)) as large:
        (told,) = large.context.evaluate([Run(0, 0, [5, 6], 1)])
        assert told[0].is_full  # type: ignore[index, union-attr]  # one row


def test_a_server_that_tells_nothing_of_its_vocabulary_is_said_so(
    tiny: TinyFederation, caplog: pytest.LogCaptureFixture
) -> None:
    top = [{"a": -0.5, "b": -1.5}]
    answer = {"choices": [{"logprobs": {"top_logprobs": top}}]}
    with (
        scripted_server((200, answer)) as script,
        opened(settings_for(tiny, kind="openai", url=script.url, model="m")),
    ):
        assert "rows are approximate" in caplog.text
        assert "tells nothing of its vocabulary; set worker.large.tokenizer" in caplog.text


def test_what_a_server_refuses_is_known_at_the_start(tiny: TinyFederation) -> None:
    with scripted_server((404, {"error": {"message": "no model m"}})) as script:
        settings = settings_for(tiny, kind="vllm", url=script.url, model="m")
        with pytest.raises(LargeModelError, match="404: no model m"):
            open_large(settings, context_tokens=128)


@pytest.mark.parametrize("content", ["", "{}", '{"model": {"vocab": {}}}', '{"model": 7}', "[]"])
def test_a_tokenizer_that_is_none_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelFileError, match="cannot read the vocabulary of"):
        vocabulary_of_folder(tmp_path)


def test_torch_is_not_imported_unless_it_is_chosen() -> None:
    code = "import sys, coordinator.worker.daemon; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
