"""Sharing a machine's cores with other processes, for whatever computes a lot."""

import os


def let_others_run() -> None:
    """Keep OpenMP's threads from spinning while they wait; before torch or llama.cpp is imported.

    Where another process wants the same cores, spinning costs most of the speed: decoding falls
    from 110 to under 30 tokens/s, measured. What the user has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
