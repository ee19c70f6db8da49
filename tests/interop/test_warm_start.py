"""A session on a spare child has its first answer much sooner than one that has to start the server."""

import pathlib
import subprocess
import sys

from gateway import NODE, PACKAGES, SLUICE

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "bench/warm_start.py"


def test_a_warm_session_waits_a_tenth_of_the_time_of_a_cold_one():
    command = [sys.executable, SCRIPT, "--check", "--rounds", "9", "--shared", "0", "--target", pathlib.Path(SLUICE).parent]
    command += ["--server", NODE, PACKAGES / "server-everything/dist/index.js"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
