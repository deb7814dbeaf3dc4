"""How hypothesis runs here: no deadline, for shared processors are slow now and then."""

from hypothesis import settings

settings.register_profile("fedpt", deadline=None, max_examples=50)
settings.load_profile("fedpt")
