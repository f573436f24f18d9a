"""The default seccomp profile: the system calls that a container gets when nobody says otherwise.

It equals the default profile of Docker for x86_64 and aarch64 (moby/profiles), so that what runs there runs
here; a test holds the two together for every capability. The statement is ours: groups, each with its reason.

The profile lists what is allowed. What it does not name is denied with EPERM, and denied with ENOSYS when it
is newer than everything named, so that a C library falls back to an older call. Left out on purpose:

- what namespaces do not divide: ``add_key keyctl request_key`` (keyrings), ``swapon swapoff``, ``nfsservctl``,
  ``kexec_load kexec_file_load``;
- what gave unprivileged users a way into the kernel: ``io_uring_*``, ``userfaultfd``, ``vm86 vm86old``;
- what is obsolete and not worth its risk: ``create_module get_kernel_syms query_module``, ``sysfs ustat``,
  ``_sysctl``, ``uselib``;
- moving the memory of others between nodes: ``move_pages migrate_pages``;
- ``pivot_root``; and new namespaces, mounts and the like, until a capability brings them back.
"""

from __future__ import annotations

import functools
from errno import ENOSYS, EPERM

from pycontain.kernel.syscall_tables import Abi
from pycontain.sandbox.seccomp import Action, Answer, Arg, Op, Profile, Rule, Where

# Names exist per ABI: stat64, mmap2, *_time64 and the like are the 32-bit forms of their neighbours.
_EVERYBODY = {
    "files: open, make, link, rename, remove": """
        access chdir chmod close close_range creat faccessat faccessat2 fchdir fchmod fchmodat fchmodat2 getcwd
        link linkat mkdir mkdirat mknod mknodat name_to_handle_at open openat openat2 readlink readlinkat
        rename renameat renameat2 rmdir symlink symlinkat umask unlink unlinkat
        """,
    "files: owners, times, size, state": """
        chown chown32 fchown fchown32 fchownat lchown lchown32 fstat fstat64 fstatat64 lstat lstat64 newfstatat
        stat stat64 statx fstatfs fstatfs64 statfs statfs64 listmount statmount futimesat utime utimensat
        utimensat_time64 utimes fallocate ftruncate ftruncate64 truncate truncate64 flock
        """,
    "files: extended attributes": """
        fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat
        llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat
        """,
    "descriptors: read, write, seek, copy": """
        copy_file_range dup dup2 dup3 fcntl fcntl64 getdents getdents64 ioctl lseek _llseek pipe pipe2 pread64
        preadv preadv2 pwrite64 pwritev pwritev2 read readv sendfile sendfile64 splice tee vmsplice write writev
        """,
    "descriptors: caches and the disk": """
        cachestat fadvise64 fadvise64_64 fdatasync fsync readahead sync sync_file_range syncfs
        """,
    "descriptors: wait for them": """
        epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
        eventfd eventfd2 poll ppoll ppoll_time64 pselect6 pselect6_time64 select _newselect signalfd signalfd4
        timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
        """,
    "watch files; fanotify_mark is useless without fanotify_init, which needs a capability": """
        fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
        """,
    "asynchronous input and output of POSIX": """
        io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit
        """,
    "memory": """
        brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap
        mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect
        remap_file_pages
        """,
    "processes and threads: start, wait, end": """
        execve execveat exit exit_group fork pidfd_open process_mrelease vfork wait4 waitid waitpid
        """,
    "processes and threads: who am I": """
        getpgid getpgrp getpid getppid getsid gettid setpgid setsid times getrusage uname sysinfo getcpu
        """,
    "threads: locks and what the C library sets up for each": """
        futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list set_robust_list
        get_thread_area set_thread_area set_tid_address rseq
        """,
    "settings of the process": """
        getrlimit prlimit64 setrlimit ugetrlimit prctl restart_syscall uretprobe riscv_hwprobe
        """,
    "scheduling": """
        getpriority setpriority ioprio_get ioprio_set sched_getaffinity sched_getattr sched_getparam
        sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval
        sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
        sched_yield
        """,
    "users and groups; the capabilities decide": """
        getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32
        getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups
        setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid
        setuid32 capget capset
        """,
    "confine oneself further": """
        landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp
        """,
    "signals": """
        kill pause pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
        rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn
        tgkill tkill
        """,
    "time: read, sleep, timers; setting a clock fails without CAP_SYS_TIME": """
        adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
        clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time
        timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
        """,
    "sockets, once there; socketcall is how old 32-bit programs make all of these calls": """
        accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg
        recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair
        """,
    "POSIX message queues": """
        mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
        mq_unlink
        """,
    "System V IPC, which has a namespace": """
        ipc msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt
        shmget
        """,
    "random numbers": "getrandom",
}

# personality(2): what changes nothing that protects. Not, for one, READ_IMPLIES_EXEC.
_PERSONALITIES = (
    0x0000_0000,  # PER_LINUX
    0x0000_0008,  # PER_LINUX32
    0x0002_0000,  # UNAME26
    0x0002_0008,  # PER_LINUX32 with UNAME26
    0xFFFF_FFFF,  # only ask
)

# Address families with their own way around namespaces or into the kernel; linux/socket.h.
_AF_ALG = 38  # the kernel's cryptography
_AF_NFC = 39  # the one between them, allowed as the rest
_AF_VSOCK = 40  # from a virtual machine to its host

# clone(2), the flags CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}.
_NEW_NAMESPACES = 0x7E02_0000

_BY_CAPABILITY = {
    "BPF": "bpf",
    "DAC_READ_SEARCH": "open_by_handle_at",
    "PERFMON": "perf_event_open",
    "SYSLOG": "syslog",
    "SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
        lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl
        quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare
        """,
    "SYS_BOOT": "reboot",
    "SYS_CHROOT": "chroot",
    "SYS_MODULE": "delete_module finit_module init_module",
    "SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "SYS_PACCT": "acct",
    "SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "SYS_RAWIO": "ioperm iopl",
    "SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "SYS_TTY_CONFIG": "vhangup",
}

_ALLOW = Answer(Action.ALLOW)
_ANYWHERE = Where()
_SYS_ADMIN = Where(caps=frozenset({"SYS_ADMIN"}))


@functools.cache
def default_profile() -> Profile:
    """The default profile; always the same object."""
    return Profile(
        default=Answer(Action.ERRNO, EPERM),
        abis=tuple(Abi),
        rules=(
            *(_allow(names) for names in _EVERYBODY.values()),
            # Before 4.8 a tracer could change a system call after the filter had seen it.
            _allow("process_vm_readv process_vm_writev ptrace", includes=Where(min_kernel=(4, 8))),
            *_sockets(),
            *(_allow("personality", Arg(0, Op.EQ, persona)) for persona in _PERSONALITIES),
            *_by_architecture(),
            *(
                _allow(names, includes=Where(caps=frozenset({capability})))
                for capability, names in _BY_CAPABILITY.items()
            ),
            *_clone(),
        ),
    )


def _allow(names: str, *args: Arg, includes: Where = _ANYWHERE, excludes: Where = _ANYWHERE) -> Rule:
    return Rule(tuple(names.split()), _ALLOW, args, includes, excludes)


def _sockets() -> tuple[Rule, ...]:
    return (
        _allow("socket", Arg(0, Op.LT, _AF_ALG)),
        _allow("socket", Arg(0, Op.EQ, _AF_NFC)),
        _allow("socket", Arg(0, Op.GT, _AF_VSOCK)),
    )


def _by_architecture() -> tuple[Rule, ...]:
    arm = Where(arches=frozenset({"arm64"}))
    intel = Where(arches=frozenset({"amd64"}))
    return (
        _allow(
            "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
            includes=arm,
        ),
        _allow("arch_prctl modify_ldt", includes=intel),
    )


def _clone() -> tuple[Rule, ...]:
    """Threads and processes for everybody, new namespaces only with CAP_SYS_ADMIN.

    clone3 passes its flags in memory, where no filter sees them; ENOSYS makes the C library use clone.
    """
    return (
        _allow("clone", Arg(0, Op.MASKED_EQ, _NEW_NAMESPACES), excludes=_SYS_ADMIN),
        Rule(("clone3",), Answer(Action.ERRNO, ENOSYS), excludes=_SYS_ADMIN),
    )
