"""Ctrl-C goes to every process of a terminal at once; only the one that was started answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from buttress.interrupts import deaf_children, interrupts_held

ASK = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"


def forked_child_is_deaf() -> bool:
    child = os.fork()
    if child == 0:
        os._exit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def spawned_child_is_deaf() -> bool:
    return subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True).stdout == "True\n"


def test_processes_that_are_forked_meanwhile_ignore_it():
    before = signal.getsignal(signal.SIGINT)
    with deaf_children():
        assert forked_child_is_deaf()
        with deaf_children():
            pass
        assert forked_child_is_deaf()
    assert not forked_child_is_deaf()
    assert signal.getsignal(signal.SIGINT) is before


def test_processes_that_are_spawned_meanwhile_never_see_it():
    with interrupts_held():
        assert spawned_child_is_deaf()
    assert not spawned_child_is_deaf()
