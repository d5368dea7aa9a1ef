"""What holds for all tests."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers share the cores already: threads of their own, which wait for each other spinning, make small tensors'
    # operations slower by an order of magnitude. Set before torch or numpy are imported, and for subprocesses, too.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
