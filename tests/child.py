"""A test module that runs itself as a process of its own."""

import json
import subprocess
import sys

# As in pyproject.toml: the process shares the programs of the workers.
CACHE = "ignore:Error reading persistent compilation cache entry:UserWarning"


def answers_of(file, *args):
    """What the process prints as JSON; a warning ends it, and so the test."""
    command = [sys.executable, "-W", "error", "-W", CACHE, file, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
