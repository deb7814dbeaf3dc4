"""What tests of several packages share: one tiny federation's files, made once."""

import pytest

from tests.fakes.tiny_federation import TinyFederation


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyFederation:
    """A small and a large model of one vocabulary, an adapter, and examples."""
    from tests.fakes.tiny_federation import make_tiny_federation  # torch: only for who asks

    return make_tiny_federation(tmp_path_factory.mktemp("federation"))
