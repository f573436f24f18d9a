"""A lock that keeps forks and late imports apart.

A fork in the middle of another thread's import leaves the child with that module's lock, which nobody releases there.
What is imported late is therefore imported with this lock held, and a fork waits for it: some milliseconds, once.
"""

from __future__ import annotations

import os
import threading

loading = threading.RLock()

os.register_at_fork(before=loading.acquire, after_in_parent=loading.release, after_in_child=loading.release)
