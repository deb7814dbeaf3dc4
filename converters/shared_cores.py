"""Sharing a machine's cores with other processes, for command lines that compute a lot."""

import os


def let_others_run() -> None:
    """Keep OpenMP's threads from spinning while they wait; before torch or llama.cpp is imported.

    Where another process wants the same cores, spinning costs most of the speed (measured).
    What the user has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
