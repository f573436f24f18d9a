"""Other programs that read a store while we write to it."""

import shutil
import subprocess
import threading


class Readers:
    """skopeo and umoci, reading the image *name*, which is always there, over and over; ``failures`` is what went wrong."""

    def __init__(self, store, name):
        self._commands = [
            command
            for command in (
                ["skopeo", "inspect", f"oci:{store}:{name}"],
                ["umoci", "stat", "--image", f"{store}:{name}"],
                ["umoci", "list", "--layout", store],
            )
            if shutil.which(command[0])
        ]
        self.failures = []
        self.reads = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._ended.is_set():
            for command in self._commands:
                done = subprocess.run(command, check=False, capture_output=True, text=True)
                self.reads += 1
                if done.returncode:
                    self.failures.append((command, done.stderr))
            self._ended.wait(0.02)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()
