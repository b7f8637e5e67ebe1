"""A sandbox for a process, without privileges: no sockets, no writing, no other processes, and only the code to read.

Linux on x86-64 and 64-bit ARM. A system call filter (seccomp) allows what parsing in memory needs and answers EPERM to everything else.
If the kernel has Landlock, the process can read only the given folders and cannot inspect other processes.
"""

import ctypes
import os
import platform
import resource
import struct
from collections.abc import Sequence
from pathlib import Path

NO_NEW_PRIVILEGES = 38
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
LANDLOCK_VERSION_FLAG, LANDLOCK_PATH_BENEATH = 1, 1
# Landlock's rights over files in its first version. Only reading files and folders is granted.
ALL_RIGHTS, READ_RIGHTS, READ_FILE = (1 << 13) - 1, 0b1100, 0b0100
SECCOMP_FILTER_MODE, SECCOMP_ALL_THREADS = 1, 1

# System call numbers on x86-64 and on 64-bit ARM.
ALLOWED = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "access": (21, None),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "setitimer": (38, 103),
    "getpid": (39, 172),
    "exit": (60, 93),
    "uname": (63, 160),
    "fcntl": (72, 25),
    "getcwd": (79, 17),
    "readlink": (89, None),
    "gettimeofday": (96, 169),
    "getrlimit": (97, 163),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "times": (100, 153),
    "getuid": (102, 174),
    "getgid": (104, 176),
    "geteuid": (107, 175),
    "getegid": (108, 177),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "time": (201, None),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "getdents64": (217, 61),
    "restart_syscall": (219, 128),
    "fadvise64": (221, 223),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "newfstatat": (262, 79),
    "readlinkat": (267, 78),
    "faccessat": (269, 48),
    "set_robust_list": (273, 99),
    "getrandom": (318, 278),
    "membarrier": (324, 283),
    "statx": (332, 291),
    "rseq": (334, 293),
    "faccessat2": (439, 439),
}
# Allowed if the argument at that position has none of these bits: opening without writing.
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CONDITIONAL = {
    "open": (2, None, 1, WRITING),
    "openat": (257, 56, 2, WRITING),
}
# The kernel's audit number of the architecture, the column above, and the number of the seccomp call.
MACHINES = {"x86_64": (0xC000003E, 0, 317), "aarch64": (0xC00000B7, 1, 277)}

INSTRUCTION = struct.Struct("=HBBI")
LOAD, JUMP_EQUAL, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
KILL, REFUSE, ALLOW = 0x80000000, 0x00050000 | 1, 0x7FFF0000
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16


class FilterProgram(ctypes.Structure):
    """A filter in the kernel's layout (struct sock_fprog)."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def set_limits(memory_bytes: int, files: int) -> None:
    """Set limits that cannot be raised again: memory and open files as given, no file writes, no core file."""
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def prefer_ending_this() -> None:
    """Have the kernel kill this process before any other when memory runs out."""
    with Path("/proc/self/oom_score_adj").open("w") as file:
        file.write("1000")


def has_landlock() -> bool:
    """True if the kernel can also restrict which files a process reads."""
    version = ctypes.CDLL(None).syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), LANDLOCK_VERSION_FLAG)
    return bool(version >= 1)


def confine(readable: Sequence[Path]) -> None:
    """Put this process into the sandbox for the rest of its life. Raises OSError if the kernel or the machine cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    _call(libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _landlock(libc, readable)
    _filter(libc)


def filter_program(machine: str) -> bytes:
    """The filter for a machine, as the kernel's instructions. Raises OSError for an unknown machine."""
    if machine not in MACHINES:
        raise OSError(f"there is no system call filter for {machine}")
    architecture, column, _ = MACHINES[machine]
    program = [(LOAD, 0, 0, ARCHITECTURE_AT), (JUMP_EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL)]
    program.append((LOAD, 0, 0, NUMBER_AT))
    for numbers in ALLOWED.values():
        if (number := numbers[column]) is not None:
            program += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    for *columns, place, bits in CONDITIONAL.values():
        if (number := columns[column]) is not None:
            program += [
                (JUMP_EQUAL, 0, 4, number),
                (LOAD, 0, 0, ARGUMENTS_AT + 8 * place),
                (JUMP_ANY_BIT, 1, 0, bits),
                (RETURN, 0, 0, ALLOW),
                (RETURN, 0, 0, REFUSE),
            ]
    program.append((RETURN, 0, 0, REFUSE))
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in program)


def _filter(libc: ctypes.CDLL) -> None:
    machine = platform.machine()
    code = ctypes.create_string_buffer(filter_program(machine))
    program = FilterProgram(len(code) // INSTRUCTION.size, ctypes.cast(code, ctypes.c_void_p))
    _call(libc.syscall(MACHINES[machine][2], SECCOMP_FILTER_MODE, SECCOMP_ALL_THREADS, ctypes.byref(program)))


def _landlock(libc: ctypes.CDLL, readable: Sequence[Path]) -> None:
    if not has_landlock():
        return
    attributes = ctypes.create_string_buffer(struct.pack("=Q", ALL_RIGHTS), 8)
    rules = _call(libc.syscall(LANDLOCK_CREATE, attributes, ctypes.c_size_t(8), 0))
    for path in readable:
        if not path.exists():
            continue
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = ctypes.create_string_buffer(struct.pack("=Qi", READ_RIGHTS if path.is_dir() else READ_FILE, folder), 12)
        _call(libc.syscall(LANDLOCK_ADD, rules, LANDLOCK_PATH_BENEATH, rule, 0))
        os.close(folder)
    _call(libc.syscall(LANDLOCK_RESTRICT, rules, 0))
    os.close(rules)


def _call(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
