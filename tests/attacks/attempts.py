"""What an attacker tries from inside: ``attempts.py NAME…`` prints for each how it ended, an errno's name or "done".

It runs in the container and imports nothing of pycontain. /numbers.json says by which numbers this machine is called.
Every attempt is harmless when it succeeds: what is written is what was there.
"""

import contextlib
import ctypes
import errno
import json
import os
import signal
import socket
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
with open("/numbers.json") as file:
    NUMBERS = json.load(file)

MS_REMOUNT, MS_BIND, MNT_DETACH = 0x20, 0x1000, 2
NAMESPACES = {
    "NEWUSER": 0x10000000,
    "NEWNS": 0x00020000,
    "NEWPID": 0x20000000,
    "NEWNET": 0x40000000,
    "NEWUTS": 0x04000000,
    "NEWIPC": 0x08000000,
    "NEWCGROUP": 0x02000000,
    "NEWTIME": 0x00000080,
}


def call(name, *args):
    """syscall(2)"""
    wide = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result = LIBC.syscall(ctypes.c_long(NUMBERS[name]), *wide)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def in_child(act):
    """Do it in a child, so that it changes nothing for the attempts that follow."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            number = 0
            act()
        except OSError as error:
            number = error.errno
        os.write(writer, bytes([number]))
        os._exit(0)
    os.waitpid(pid, 0)
    number = os.read(reader, 1)[0]
    os.close(reader)
    os.close(writer)
    if number:
        raise OSError(number, "")


def write_again(path):
    """Write what is there already; of what cannot be read, nothing."""
    content = b""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        content = file.read()
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


# --- mounts ---------------------------------------------------------------------------------------------


def mount_tmpfs():
    call("mount", b"none", b"/tmp", b"tmpfs", 0, None)


def mount_proc():
    call("mount", b"proc", b"/tmp", b"proc", 0, None)


def mount_cgroup():
    call("mount", b"cgroup", b"/tmp", b"cgroup2", 0, None)


def mount_bind():
    call("mount", b"/etc", b"/tmp", None, MS_BIND, None)


def remount_proc_sys():
    call("mount", None, b"/proc/sys", None, MS_REMOUNT | MS_BIND, None)


def unmount_a_mask():
    call("umount2", b"/proc/fs", MNT_DETACH)


def clone_a_mount():
    os.close(call("open_tree", -100, b"/etc", 1))


def open_a_file_system():
    os.close(call("fsopen", b"tmpfs", 0))


def change_a_mount():
    attributes = (ctypes.c_uint64 * 4)(0, 1, 0, 0)  # MOUNT_ATTR_RDONLY is taken away
    call("mount_setattr", -100, b"/proc/sys", 0, attributes, 32)


def pivot():
    os.mkdir("/tmp/new")
    try:
        call("pivot_root", b"/tmp/new", b"/tmp/new")
    except OSError as error:
        if error.errno != errno.EINVAL:  # it is no mount point: permitted, and wrong
            raise
    finally:
        os.rmdir("/tmp/new")


# --- namespaces -----------------------------------------------------------------------------------------


def unshare(flag):
    in_child(lambda: call("unshare", flag))


def clone(flag):
    pid = call("clone", flag | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def clone3(flag):
    arguments = (ctypes.c_uint64 * 11)(flag, 0, 0, 0, signal.SIGCHLD)
    pid = call("clone3", arguments, 64)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def setns():
    fd = os.open("/proc/self/ns/uts", os.O_RDONLY)
    in_child(lambda: call("setns", fd, 0))
    os.close(fd)


# --- parts of the kernel that nobody inside needs --------------------------------------------------------


def keyctl():
    call("keyctl", 0, -3, 1)  # KEYCTL_GET_KEYRING_ID of the session, made when there is none


def add_key():
    call("add_key", b"user", b"pycontain", b"x", 1, -3)


def request_key():
    try:
        call("request_key", b"user", b"nothing", None, -3)
    except OSError as error:
        if error.errno != errno.ENOKEY:  # searched, and not there
            raise


def bpf():
    array = (ctypes.c_uint32 * 32)(2, 4, 8, 1)
    os.close(call("bpf", 0, array, 128))


def userfaultfd():
    os.close(call("userfaultfd", 0))


def perf_event_open():
    event = (ctypes.c_uint32 * 28)(1, 112, 0)  # a software event: the CPU clock
    os.close(call("perf_event_open", event, 0, -1, -1, 0))


def io_uring_setup():
    os.close(call("io_uring_setup", 1, (ctypes.c_uint32 * 32)()))


def open_by_handle():
    """The "shocker" of 2014: an inode of any file system of which a descriptor is there."""
    handle = (ctypes.c_uint32 * 4)(8, 1, 2, 0)
    top = os.open("/tmp", os.O_RDONLY)
    try:
        os.close(call("open_by_handle_at", top, handle, 0))
    except OSError as error:
        if error.errno not in {errno.ESTALE, errno.EOPNOTSUPP}:  # permitted, and no such inode
            raise
    finally:
        os.close(top)


def init_module():
    call("init_module", b"", 0, b"")


def kexec_load():
    call("kexec_load", 0, 0, None, 0)


def set_the_clock():
    call("settimeofday", (ctypes.c_long * 2)(-1, -1), None)


def reboot():
    call("reboot", 0xFEE1DEAD, 672274793, 0, None)  # LINUX_REBOOT_CMD_CAD_OFF


def read_kernel_messages():
    call("syslog", 3, ctypes.create_string_buffer(16), 16)


def swap_on():
    call("swapon", b"/etc/hostname", 0)


def packet_socket():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()


def vsock():
    """AF_VSOCK reaches the machine below this one."""
    socket.socket(40, socket.SOCK_STREAM).close()


# --- devices, and files of the kernel ----------------------------------------------------------------------


def device(kind, major, minor):
    path = "/tmp/node"
    os.mknod(path, kind | 0o600, os.makedev(major, minor))
    try:
        os.close(os.open(path, os.O_RDONLY))
    finally:
        os.unlink(path)


def device_in_dev():
    path = "/dev/shm/../node"
    os.mknod(path, 0o020600, os.makedev(1, 5))
    try:
        os.close(os.open(path, os.O_RDONLY))
    finally:
        os.unlink(path)


ATTEMPTS = {
    act.__name__: act
    for act in (
        mount_tmpfs, mount_proc, mount_cgroup, mount_bind, remount_proc_sys, unmount_a_mask, clone_a_mount,
        open_a_file_system, change_a_mount, pivot, setns, keyctl, add_key, request_key, bpf, userfaultfd,
        perf_event_open, io_uring_setup, open_by_handle, init_module, kexec_load, set_the_clock, reboot,
        read_kernel_messages, swap_on, packet_socket, vsock, device_in_dev,
    )
}  # fmt: skip
for word, bit in NAMESPACES.items():
    ATTEMPTS[f"unshare_{word}"] = lambda bit=bit: unshare(bit)
    ATTEMPTS[f"clone3_{word}"] = lambda bit=bit: clone3(bit)
    if word != "NEWTIME":  # clone(2): its bit belongs to the signal
        ATTEMPTS[f"clone_{word}"] = lambda bit=bit: clone(bit)
for word, numbers in {
    "zero": (0o020000, 1, 5),
    "mem": (0o020000, 1, 1),
    "disk": (0o060000, 8, 0),
    "loop": (0o060000, 7, 0),
}.items():
    ATTEMPTS[f"device_{word}"] = lambda numbers=numbers: device(*numbers)


def outcome(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    return "done"


def attempt(name):
    """By name; any other name is a file to be written."""
    return outcome(ATTEMPTS.get(name, lambda: write_again(name)))


if __name__ == "__main__":
    print(json.dumps({name: attempt(name) for name in sys.argv[1:]}))
