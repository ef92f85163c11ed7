"""Runs a command as a container without something does: without.py WHAT COMMAND...

netlink: the kernel refuses sockets of netlink, as seccomp profiles, gVisor and some sandboxes do. threads: it starts no
further thread, as in a pod whose limit of processes the app has used up. buffers: no socket's receive buffer is made
larger than the default.
"""

import ctypes
import os
import platform
import struct
import sys

# linux/audit.h, and the numbers of the system calls socket, clone, clone3 and setsockopt.
MACHINES = {"x86_64": (0xC000003E, 41, 56, 435, 54), "aarch64": (0xC00000B7, 198, 220, 435, 208)}
AF_NETLINK, CLONE_THREAD, SOL_SOCKET, SO_RCVBUF = 16, 0x10000, 1, 8
EPERM, EAGAIN, ENOSYS = 1, 11, 38

LOAD, EQUAL, HAS, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT, SECOND_ARGUMENT, THIRD_ARGUMENT = 0, 4, 16, 24, 32

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2

architecture, socket, clone, clone3, setsockopt = MACHINES[platform.machine()]


def refuse(call, error, *arguments):
    """The steps that answer a system call with an error, where each of these is so of its arguments too."""
    conditions = [(NUMBER, EQUAL, call), *arguments]
    steps = []
    for left, (what, how, value) in zip(range(len(conditions), 0, -1), conditions):
        past_the_answer = 2 * left - 1
        steps += [(LOAD, 0, 0, what), (how, 0, past_the_answer, value)]
    return [*steps, (RETURN, 0, 0, ERRNO | error)]


FILTERS = {
    "netlink": refuse(socket, EPERM, (FIRST_ARGUMENT, EQUAL, AF_NETLINK)),
    # The C library falls back from clone3, whose flags no filter can see, to clone.
    "threads": refuse(clone3, ENOSYS) + refuse(clone, EAGAIN, (FIRST_ARGUMENT, HAS, CLONE_THREAD)),
    "buffers": refuse(
        setsockopt, EPERM, (SECOND_ARGUMENT, EQUAL, SOL_SOCKET), (THIRD_ARGUMENT, EQUAL, SO_RCVBUF)
    ),
}
ALLOWED = (RETURN, 0, 0, ALLOW)
ONLY_HERE = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, architecture), ALLOWED]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


what, command = sys.argv[1], sys.argv[2:]
steps = [*ONLY_HERE, *FILTERS[what], ALLOWED]
program = Program(len(steps), b"".join(struct.pack("HBBI", *step) for step in steps))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
    sys.exit(f"no filter: {os.strerror(ctypes.get_errno())}")
os.execvp(command[0], command)
