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
FILTERS = {
    "netlink": [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 0, 5, architecture),
        (LOAD, 0, 0, NUMBER),
        (EQUAL, 0, 3, socket),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (EQUAL, 0, 1, AF_NETLINK),
        (RETURN, 0, 0, ERRNO | EPERM),
        (RETURN, 0, 0, ALLOW),
    ],
    # The C library falls back from clone3, whose flags no filter can see, to clone.
    "threads": [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 0, 7, architecture),
        (LOAD, 0, 0, NUMBER),
        (EQUAL, 4, 0, clone3),
        (EQUAL, 0, 4, clone),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (HAS, 0, 2, CLONE_THREAD),
        (RETURN, 0, 0, ERRNO | EAGAIN),
        (RETURN, 0, 0, ERRNO | ENOSYS),
        (RETURN, 0, 0, ALLOW),
    ],
    "buffers": [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 0, 7, architecture),
        (LOAD, 0, 0, NUMBER),
        (EQUAL, 0, 5, setsockopt),
        (LOAD, 0, 0, SECOND_ARGUMENT),
        (EQUAL, 0, 3, SOL_SOCKET),
        (LOAD, 0, 0, THIRD_ARGUMENT),
        (EQUAL, 0, 1, SO_RCVBUF),
        (RETURN, 0, 0, ERRNO | EPERM),
        (RETURN, 0, 0, ALLOW),
    ],
}


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


what, command = sys.argv[1], sys.argv[2:]
steps = b"".join(struct.pack("HBBI", *step) for step in FILTERS[what])
program = Program(len(FILTERS[what]), steps)
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
    sys.exit(f"no filter: {os.strerror(ctypes.get_errno())}")
os.execvp(command[0], command)
