"""Test processes side by side share the processors: without this each would take all of them."""

from __future__ import annotations

import os

_processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _processes)))
