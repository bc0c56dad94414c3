"""The process that runs programs for `qredit.rewards.sandbox`. Run by path; imports nothing of qredit.

It goes into namespaces of its own before it reads a program: users, mounts, processes, network, IPC and host name.
There the file system is empty but for Python's library and the system's, read-only, and `/tmp`, which is new and small
for every program. Then it says "ready" and answers one JSON line, {"code", "tests": [{"stdin"} or {"value"}]}, with
another: for each test what the program wrote, or the value of an expression behind it, as text. It is never told what
is expected.

Each program runs in a child that has no capability, may not start a process or a thread, open a socket, or trace, and
is killed when its time is up or its output too long. Whatever cannot be had of this ends the process before it is
ready.
"""

import contextlib
import ctypes
import json
import os
import platform
import resource
import select
import signal
import struct
import sys
import sysconfig
import time
from collections.abc import Mapping
from typing import Any

NEW_NAMESPACES = 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000  # mounts, pids, network, IPC, host name
NEW_USER = 0x10000000
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
NOATIME, NODIRATIME, RELATIME = 1024, 2048, 1 << 21
STATVFS_RELATIME = 4096
SET_PDEATHSIG, SET_DUMPABLE, SET_NO_NEW_PRIVS, SET_SECCOMP, DROP_BOUND = 1, 4, 38, 22, 24
CAPABILITY_VERSION = 0x20080522
SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
PROGRAM_USER = 65534
# Calls that a program may not make: (x86_64, aarch64), None where there is none. Processes and threads; other programs;
# namespaces and mounts; memory that no limit counts; sockets; what looks into other processes or the kernel, or changes
# them.
DENIED = {
    "clone": (56, 220), "fork": (57, None), "vfork": (58, None), "clone3": (435, 435), "execve": (59, 221),
    "execveat": (322, 281), "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "fsopen": (430, 430), "fsmount": (432, 432), "open_tree": (428, 428),
    "move_mount": (429, 429), "mount_setattr": (442, 442), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180), "memfd_create": (319, 279), "memfd_secret": (447, 447), "socket": (41, 198),
    "socketpair": (53, 199), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262), "inotify_init1": (294, 26), "prlimit64": (302, 261), "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "setpriority": (141, 140),
    "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "sched_setattr": (314, 274),
    "sched_setparam": (142, 118), "ioprio_set": (251, 30), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "pidfd_send_signal": (424, 424),
}  # fmt: skip
ARCHITECTURES = {"x86_64": (0, 0xC000003E, 126, 125), "aarch64": (1, 0xC00000B7, 91, 90)}
"""Column of the table, number in a filter, and the numbers of capset and capget."""

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """Something that the sandbox is made of cannot be had."""


def check(what: str, returned: int) -> None:
    """Refuse to go on where a call of the system failed."""
    if returned < 0:
        raise Refused(f"{what}: {os.strerror(ctypes.get_errno())}")


def enter_user_namespace() -> None:
    """Become root of a user namespace. Outside of it nothing changes: files are opened as the user that started this.

    Where that user is root, a second user is mapped, nobody, that programs run as.
    """
    uid, gid = os.geteuid(), os.getegid()
    asked, answered = os.pipe(), os.pipe()
    child = os.fork()
    if child:
        os.close(asked[1])
        os.close(answered[0])
        os.read(asked[0], 1)
        told = b"0"
        with contextlib.suppress(OSError):
            write_maps(child, uid, gid)
            told = b"1"
        os.write(answered[1], told)
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    die_with_parent()
    check("user namespace", _libc.unshare(NEW_USER))
    os.write(asked[1], b".")
    if os.read(answered[0], 1) != b"1":
        raise Refused("user namespace: its users cannot be mapped")
    for end in (*asked, *answered):
        os.close(end)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    die_with_parent()  # again: the system forgets it where the user changes


def write_maps(child: int, uid: int, gid: int) -> None:
    """Say which users outside a child's are.

    Args:
        child: the process in the new namespace.
        uid, gid: of the one that is its root.
    """
    second = f"\n{PROGRAM_USER} {PROGRAM_USER} 1" if uid == 0 else ""
    if uid:
        _write(f"/proc/{child}/setgroups", "deny")
    _write(f"/proc/{child}/uid_map", f"0 {uid} 1{second}")
    _write(f"/proc/{child}/gid_map", f"0 {gid} 1{second}")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def die_with_parent() -> None:
    """Be killed when the parent ends, however it ends."""
    check("death of the parent", _libc.prctl(SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() == 1 and os.getpid() != 1:
        os._exit(1)


def enter_namespaces() -> None:
    """Become process 1 of a namespace without network, and with mounts that nobody else sees."""
    check("namespaces", _libc.unshare(NEW_NAMESPACES))
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    check("death of the parent", _libc.prctl(SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    check("no dump", _libc.prctl(SET_DUMPABLE, 0, 0, 0, 0))


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """The system's call of that name.

    Args:
        source: what is mounted.
        target: where.
        kind: of file system; None for one that is mounted already.
        flags: of the call.
        data: options of the file system.
    """
    returned = _libc.mount(
        source.encode(), target.encode(), None if kind is None else kind.encode(), ctypes.c_ulong(flags), data.encode()
    )
    check(f"mount of {target}", returned)


def build_root() -> None:
    """Make an empty file system the root, with libraries that can be read and a folder /tmp."""
    mount("none", "/", None, REC | PRIVATE)
    root = "/tmp"
    mount("tmpfs", root, "tmpfs", NOSUID | NODEV | NOEXEC, "size=1m,nr_inodes=256,mode=755")
    library = os.path.realpath(sysconfig.get_path("stdlib"))
    for folder in (*SYSTEM_LIBRARIES, library):
        if os.path.isdir(folder):
            bind_read_only(folder, root + folder)
    for name in ("site-packages", "dist-packages"):
        if os.path.isdir(f"{root}{library}/{name}"):
            mount("tmpfs", f"{root}{library}/{name}", "tmpfs", RDONLY | NOSUID | NODEV | NOEXEC, "size=4k")
    os.mkdir(f"{root}/tmp")
    os.mkdir(f"{root}/dev")
    open(f"{root}/dev/null", "w").close()
    bind_read_only("/dev/null", f"{root}/dev/null", NOSUID | NOEXEC)
    mount("tmpfs", root, None, REMOUNT | RDONLY | NOSUID | NODEV | NOEXEC, "size=1m,nr_inodes=256,mode=755")
    os.chroot(root)
    os.chdir("/")


def bind_read_only(source: str, target: str, flags: int = NOSUID | NODEV) -> None:
    """Show a file or a folder at another place, where nothing can be written to it.

    Args:
        source: what is there.
        target: where it is shown; made, if it is a folder.
        flags: further ones of mount.
    """
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    mount(source, target, None, BIND)
    # flags that the mount had cannot be taken off by another user than the one that set them
    had = os.statvfs(target).f_flag
    kept = had & (NOSUID | NODEV | NOEXEC | NOATIME | NODIRATIME) | (RELATIME if had & STATVFS_RELATIME else 0)
    if not os.path.isdir(source):
        kept &= ~NODEV
    mount(source, target, None, REMOUNT | BIND | RDONLY | kept | flags)


def give_up_rights(limits: Mapping[str, int]) -> None:
    """What a program runs with: another user, no capability, hard limits, and a filter of the system's calls.

    Args:
        limits: seconds of CPU, bytes of memory and of a file.
    """
    column, architecture, capset, _ = ARCHITECTURES[platform.machine()]
    with contextlib.suppress(OSError):  # mapped where the sandbox was started by root
        os.setgroups([])
    with contextlib.suppress(OSError):
        os.setresgid(PROGRAM_USER, PROGRAM_USER, PROGRAM_USER)
        os.setresuid(PROGRAM_USER, PROGRAM_USER, PROGRAM_USER)
    check("privileges", _libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    header, none = struct.pack("=Ii", CAPABILITY_VERSION, 0), struct.pack("=6I", 0, 0, 0, 0, 0, 0)
    check("capabilities", _libc.syscall(ctypes.c_long(capset), header, none))
    for name, value in {
        "RLIMIT_CPU": limits["seconds"] + 1,
        "RLIMIT_AS": limits["memory"],
        "RLIMIT_FSIZE": limits["file"],
        "RLIMIT_NOFILE": 32,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
    }.items():
        kind = getattr(resource, name)
        resource.setrlimit(kind, (value, value))
    check("death of the parent", _libc.prctl(SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    filter_calls(column, architecture)


def filter_calls(column: int, architecture: int) -> None:
    """Answer the calls of `DENIED` with EPERM from now on; those of another architecture kill.

    Args:
        column: of the table.
        architecture: as a filter sees it.
    """
    load, equal, at_least, end = 0x20, 0x15, 0x35, 0x06  # BPF: load a word, jump if equal, if at least, return
    allow, refuse, kill = 0x7FFF0000, 0x00050001, 0x80000000
    numbers = sorted({number for pair in DENIED.values() if (number := pair[column]) is not None})
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), (end, 0, 0, kill), (load, 0, 0, 0)]
    program += [(at_least, 0, 1, 0x40000000), (end, 0, 0, kill)]  # x86's third set of numbers
    for number in numbers:
        program += [(equal, 0, 1, number), (end, 0, 0, refuse)]
    program.append((end, 0, 0, allow))
    code = b"".join(struct.pack("=HBBI", *step) for step in program)
    held = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))

    whole = Program(len(program), ctypes.addressof(held))
    check("filter of calls", _libc.prctl(SET_SECCOMP, 2, ctypes.byref(whole), 0, 0))


def run_test(code: str, test: Mapping[str, str], limits: Mapping[str, int]) -> str | None:
    """What a program wrote, or the value of an expression behind it; None where it failed or was stopped.

    Args:
        code: the program.
        test: "stdin", what it reads, or "value", an expression.
        limits: as `give_up_rights`, and the characters of an answer.
    """
    mount("tmpfs", "/tmp", "tmpfs", NOSUID | NODEV | NOEXEC, f"size={limits['disk']},nr_inodes=256,mode=1777")
    (read, write), child = os.pipe(), 0
    try:
        child = os.fork()
        if not child:
            os.close(read)
            _become(code, test, limits, write)
        os.close(write)
        found = _read_all(read, limits["characters"], time.monotonic() + limits["seconds"])
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # all but this one, which is process 1 here
        _, status = os.waitpid(child, 0)
        return found if found is not None and ("value" in test or status == 0) else None
    finally:
        os.close(read)
        check("end of /tmp", _libc.umount2(b"/tmp", 2))


def _read_all(end: int, most: int, until: float) -> str | None:
    """All that is written until the other end is closed; None where time is up or it is too long."""
    found = b""
    while len(found) <= most:
        left = until - time.monotonic()
        if left <= 0 or not select.select([end], [], [], left)[0]:
            return None
        part = os.read(end, 65536)
        if not part:
            return found.decode(errors="replace")
        found += part
    return None


def _become(code: str, test: Mapping[str, str], limits: Mapping[str, int], write: int) -> None:
    """Run the program in this process, which ends with it."""
    status = 1
    try:
        reads = os.pipe()
        if "stdin" in test:
            given = test["stdin"].encode()
            with open("/tmp/.stdin", "wb") as file:
                file.write(given)
            os.dup2(os.open("/tmp/.stdin", os.O_RDONLY), 0)
            os.unlink("/tmp/.stdin")
        else:
            os.dup2(reads[0], 0)
        nowhere = os.open("/dev/null", os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.dup2(write if "stdin" in test else nowhere, 1)
        os.dup2(write, 3)
        os.closerange(4, 4096)
        if "stdin" in test:
            os.close(3)
        os.chdir("/tmp")
        os.environ.clear()
        sys.argv, sys.path[:] = ["program"], [one for one in sys.path if one != os.path.dirname(__file__)]
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        give_up_rights(limits)
        names: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
        try:
            exec(compile(code, "program", "exec"), names)
        except SystemExit as ended:
            if "value" in test or ended.code not in (None, 0):
                raise
        sys.stdout.flush()
        if "value" in test:
            value = eval(compile(test["value"], "test", "eval"), names)
            os.write(3, json.dumps(encode(value)).encode())
        status = 0
    finally:
        os._exit(status)


def encode(value: Any, depth: int = 0) -> Any:
    """A value of built-in types as JSON that says which they are; of other types nothing can be told.

    Args:
        value: to be told.
        depth: of the value in others.
    """
    kind = type(value)
    if depth > 20 or kind not in (bool, int, float, str, bytes, type(None), list, tuple, set, frozenset, dict):
        raise TypeError(kind.__name__)
    if kind is dict:
        return ["dict", [[encode(one, depth + 1), encode(other, depth + 1)] for one, other in value.items()]]
    if kind in (list, tuple, set, frozenset):
        return [kind.__name__, [encode(one, depth + 1) for one in value]]
    return [kind.__name__, repr(value)]


def say(line: str) -> None:
    """Write a line to the one that asks."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Make the sandbox, then answer requests until the input ends."""
    if platform.machine() not in ARCHITECTURES:
        raise Refused(f"no filter of calls for {platform.machine()}")
    limits = json.loads(sys.stdin.readline())
    enter_user_namespace()
    enter_namespaces()
    build_root()
    say("ready")
    for line in sys.stdin:
        request = json.loads(line)
        say(json.dumps([run_test(request["code"], test, limits) for test in request["tests"]]))


if __name__ == "__main__":
    try:
        main()
    except (Refused, OSError, KeyError) as error:
        say(f"refused {error}")
        os._exit(3)
