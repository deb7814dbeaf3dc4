"""What tests of several packages share: one tiny federation's files, and how things run."""

import os

# Tests run side by side: OpenMP's threads that spin while they wait take the others' cores, which
# makes some tests ten times slower. It is read when torch and libllama are loaded, so it is first.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import pytest
from hypothesis import HealthCheck, settings

from tests.fakes.tiny_federation import TinyFederation

# a shared processor is slow now and then, and time never fails a test
settings.register_profile(
    "fedpt", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fedpt")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyFederation:
    """A small and a large model of one vocabulary, an adapter, and examples."""
    from tests.fakes.tiny_federation import make_tiny_federation  # torch: only for who asks

    return make_tiny_federation(tmp_path_factory.mktemp("federation"))
