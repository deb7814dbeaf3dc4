"""As a child process: ends by the signal that `FEDPT_TEST_SIGNAL` says."""

import os

os.kill(os.getpid(), int(os.environ["FEDPT_TEST_SIGNAL"]))
