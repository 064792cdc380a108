"""Becomes another program that the kernel kills when its parent ends: `python launch.py PARENT_PID USER PROGRAM ARGUMENTS...`.

A program of its own, because doing this between fork and exec is not safe in a process with threads. It needs the standard library only.
"""

import ctypes
import os
import pwd
import signal
import sys

PR_SET_PDEATHSIG = 1
NO_USER = "-"


def main() -> None:
    """Switches the user if one is named, asks for the death signal, and executes the program."""
    parent, user, program = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    if user != NO_USER:
        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the signal was asked for
            sys.exit(1)
    os.execv(program[0], program)


main()
