"""What tests of several packages share: one tiny federation's files, and how things run."""

import pytest
from hypothesis import HealthCheck, settings

from fedpt.shared_cores import let_others_run
from tests.fakes.tiny_federation import TinyFederation

# Tests run side by side: OpenMP's threads that spin while they wait take the others' cores, which
# makes some tests ten times slower. None of the above has loaded torch or libllama yet.
let_others_run()

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
