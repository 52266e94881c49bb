"""Worker processes that end when the process that started them has ended, however it ended."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Exit this worker process when its parent process has died.

    Otherwise the worker would wait for work forever and keep the resources that it inherited, such as locks.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
