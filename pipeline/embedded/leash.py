"""Run before every part: give up root, tie the part's life to the supervisor's, then become it.

A script, started by its path with the bare standard library (`python -I -S leash.py ...`), because
code between fork and exec is not safe in a process with threads. The pid stays the same, so nothing
but the part itself keeps running.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_SET_SECUREBITS = 28
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


def main(arguments: list[str]) -> None:
    """`leash.py PARENT_PID STOP_SIGNAL UID GID COMMAND...`; a UID of -1 keeps the user."""
    parent, stop_signal, uid, gid = (int(number) for number in arguments[:4])
    command = arguments[4:]
    if uid >= 0:
        become(uid, gid)
    if sys.platform == "linux":
        end_with(parent, stop_signal)
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored_by_python, signal.SIG_DFL)
    os.execv(command[0], command)  # noqa: S606 - the command line is ours


def become(uid: int, gid: int) -> None:
    """Leave root for good, but still pass through folders that only root may enter.

    PostgreSQL refuses to run as root, and its data or its programs often lie below a home directory
    that nobody else may enter. Linux can hand on just that one right (an ambient capability); where
    the container withholds it, the part itself says which path it may not read.
    """
    linux = sys.platform == "linux"
    if linux:
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
        # Else access(2), by which PostgreSQL looks for its own programs, forgets the right.
        libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if linux:
        keep_passing_through_folders()


def keep_passing_through_folders() -> None:
    """Keep CAP_DAC_OVERRIDE over the exec, and nothing else (capabilities(7))."""
    libc = ctypes.CDLL(None)
    bit = 1 << _CAP_DAC_OVERRIDE
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    effective_permitted_inheritable = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
    if libc.capset(header, effective_permitted_inheritable) == 0:
        libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)


def end_with(parent: int, stop_signal: int) -> None:
    """Ask the kernel to send `stop_signal` when the supervisor dies, even by SIGKILL."""
    # After the change of user, which would clear it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, stop_signal, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the supervisor died first")


if __name__ == "__main__":
    main(sys.argv[1:])
