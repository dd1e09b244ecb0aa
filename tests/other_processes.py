"""Processes beside that of the tests, which say when they are ready and can be killed."""

import signal
import subprocess
import sys

HOLDER = """
import sys
from pathlib import Path
from chargen.durable import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


def start(program, argument):
    """A process that runs `program` and has said that it is ready."""
    words = [sys.executable, "-c", program, str(argument)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
