"""The default seccomp profile as data: what a container may ask of the kernel, and why.

Everything not named here fails with EPERM. Effect and facts are those of Docker Engine 28's
default profile; a test resolves both for many machines and compares. 32-bit and time64 entry
points stand beside the call they belong to.
"""

from __future__ import annotations

from dataclasses import dataclass

EPERM = 1
ENOSYS = 38


@dataclass(frozen=True, slots=True)
class Argument:
    """A condition on one argument.

    With the operator SCMP_CMP_MASKED_EQ `value` is the mask, and the masked argument is compared
    with `masked`.
    """

    index: int
    operator: str
    value: int
    masked: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """System calls that are allowed for one reason, under one condition.

    `capability`: only for containers that have it; `without`: only for those that have it not.
    `architectures` and `not_architectures` are Go's names; `kernel` is the oldest one.
    `errno`: instead of being allowed they fail with it.
    """

    reason: str
    calls: str
    argument: Argument | None = None
    capability: str = ""
    without: str = ""
    architectures: tuple[str, ...] = ()
    not_architectures: tuple[str, ...] = ()
    kernel: tuple[int, int] | None = None
    errno: int | None = None

    @property
    def names(self) -> list[str]:
        return self.calls.split()


ARCHITECTURES: dict[str, tuple[str, tuple[str, ...]]] = {
    "amd64": ("SCMP_ARCH_X86_64", ("SCMP_ARCH_X86", "SCMP_ARCH_X32")),
    "arm64": ("SCMP_ARCH_AARCH64", ("SCMP_ARCH_ARM",)),
    "mips64": ("SCMP_ARCH_MIPS64", ("SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64N32")),
    "mips64n32": ("SCMP_ARCH_MIPS64N32", ("SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64")),
    "mipsel64": ("SCMP_ARCH_MIPSEL64", ("SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64N32")),
    "mipsel64n32": ("SCMP_ARCH_MIPSEL64N32", ("SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64")),
    "s390x": ("SCMP_ARCH_S390X", ("SCMP_ARCH_S390",)),
    "riscv64": ("SCMP_ARCH_RISCV64", ()),
    "loong64": ("SCMP_ARCH_LOONGARCH64", ()),
}
"""Machine (Go's name) → its own architecture and those whose programs it also runs."""

_NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET."""

_AF_ALG, _AF_VSOCK = 38, 40

_ORDINARY = (
    Group(
        reason="opening, reading and writing files that permissions already guard",
        calls="""open openat openat2 creat close close_range read readv pread64 preadv preadv2
        write writev pwrite64 pwritev pwritev2 lseek _llseek dup dup2 dup3 fcntl fcntl64 flock
        ioctl readahead fadvise64 fadvise64_64 fallocate truncate truncate64 ftruncate ftruncate64
        fsync fdatasync sync syncfs sync_file_range copy_file_range sendfile sendfile64 splice tee
        vmsplice""",
    ),
    Group(
        reason="the tree of files: names, links, modes, owners, times",
        calls="""access faccessat faccessat2 stat stat64 lstat lstat64 fstat fstat64 fstatat64
        newfstatat statx statfs statfs64 fstatfs fstatfs64 getdents getdents64 getcwd chdir fchdir
        mkdir mkdirat rmdir mknod mknodat link linkat symlink symlinkat readlink readlinkat unlink
        unlinkat rename renameat renameat2 umask chmod fchmod fchmodat fchmodat2 chown chown32
        lchown lchown32 fchown fchown32 fchownat utime utimes futimesat utimensat
        utimensat_time64 name_to_handle_at""",
    ),
    Group(
        reason="what is mounted, seen from the container's own mount namespace",
        calls="listmount statmount",
    ),
    Group(
        reason="extended attributes; trusted and security ones need capabilities anyway",
        calls="""getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat
        listxattr llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr
        removexattrat""",
    ),
    Group(
        reason="waiting for files, events and timers",
        calls="""poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create
        epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2
        eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_settime64
        timerfd_gettime timerfd_gettime64 inotify_init inotify_init1 inotify_add_watch
        inotify_rm_watch fanotify_mark io_setup io_destroy io_submit io_cancel io_getevents
        io_pgetevents io_pgetevents_time64""",
    ),
    Group(
        reason="pipes and sockets; which address families is said below",
        calls="""pipe pipe2 socketpair socketcall bind listen accept accept4 connect shutdown
        getsockname getpeername getsockopt setsockopt send sendto sendmsg sendmmsg recv recvfrom
        recvmsg recvmmsg recvmmsg_time64""",
    ),
    Group(
        reason="memory of the process itself",
        calls="""brk mmap mmap2 munmap mremap mprotect madvise mincore msync mlock mlock2 mlockall
        munlock munlockall membarrier memfd_create memfd_secret remap_file_pages pkey_alloc
        pkey_free pkey_mprotect mseal map_shadow_stack""",
    ),
    Group(
        reason="starting programs, waiting for them, ending; namespaces are said below",
        calls="""fork vfork execve execveat exit exit_group wait4 waitid waitpid getpid getppid
        gettid getpgid getpgrp getsid setpgid setsid prctl set_tid_address set_robust_list
        get_robust_list pidfd_open pidfd_send_signal process_mrelease rseq restart_syscall uretprobe
        riscv_hwprobe""",
    ),
    Group(
        reason="threads: locks and thread-local storage",
        calls="""futex futex_time64 futex_requeue futex_wait futex_waitv futex_wake
        get_thread_area set_thread_area""",
    ),
    Group(
        reason="signals, to processes of the own PID namespace",
        calls="""kill tkill tgkill rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
        rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
        sigaltstack sigprocmask sigreturn pause""",
    ),
    Group(
        reason="who the process is; changes are bounded by its capabilities",
        calls="""getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid
        getresuid32 getresgid getresgid32 getgroups getgroups32 setuid setuid32 setgid setgid32
        setreuid setreuid32 setregid setregid32 setresuid setresuid32 setresgid setresgid32
        setfsuid setfsuid32 setfsgid setfsgid32 setgroups setgroups32 capget capset""",
    ),
    Group(
        reason="giving up rights is always welcome",
        calls="seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self",
    ),
    Group(
        reason="scheduling and limits; raising them needs capabilities",
        calls="""sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr
        sched_getparam sched_setparam sched_getscheduler sched_setscheduler sched_get_priority_max
        sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64 getcpu
        getpriority setpriority ioprio_get ioprio_set getrlimit ugetrlimit setrlimit prlimit64
        getrusage""",
    ),
    Group(
        reason="clocks and timers; setting the clock needs CAP_SYS_TIME, reading does not",
        calls="""time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64
        clock_nanosleep clock_nanosleep_time64 nanosleep alarm getitimer setitimer times
        timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
        timer_settime64 adjtimex clock_adjtime clock_adjtime64""",
    ),
    Group(
        reason="System V and POSIX IPC, which the IPC namespace confines",
        calls="""ipc msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64
        shmat shmctl shmdt shmget mq_getsetattr mq_notify mq_open mq_timedreceive
        mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink""",
    ),
    Group(
        reason="facts about the system, and random numbers",
        calls="uname sysinfo getrandom cachestat",
    ),
)

_WITH_CONDITIONS = (
    Group(
        reason="tracing one's own children; before 4.8 ptrace could bypass seccomp",
        calls="process_vm_readv process_vm_writev ptrace",
        kernel=(4, 8),
    ),
    # AF_ALG reaches a large, rarely audited part of the kernel's crypto; AF_VSOCK reaches the
    # hypervisor, past every network namespace. Three ranges, because a rule that forbids would
    # have to beat one that allows.
    Group(
        reason="address families below AF_ALG",
        calls="socket",
        argument=Argument(0, "SCMP_CMP_LT", _AF_ALG),
    ),
    Group(
        reason="the family between AF_ALG and AF_VSOCK (NFC)",
        calls="socket",
        argument=Argument(0, "SCMP_CMP_EQ", 39),
    ),
    Group(
        reason="address families above AF_VSOCK",
        calls="socket",
        argument=Argument(0, "SCMP_CMP_GT", _AF_VSOCK),
    ),
    # Others switch off address space randomization or emulate systems with weaker rules.
    *(
        Group(
            reason=f"personality {what}",
            calls="personality",
            argument=Argument(0, "SCMP_CMP_EQ", persona),
        )
        for persona, what in (
            (0x0, "PER_LINUX"),
            (0x8, "PER_LINUX32"),
            (0x20000, "UNAME26"),
            (0x20008, "UNAME26 with PER_LINUX32"),
            (0xFFFFFFFF, "of which only the present value is asked"),
        )
    ),
    Group(
        reason="threads and processes, but no new namespaces: they open more of the kernel",
        calls="clone",
        argument=Argument(0, "SCMP_CMP_MASKED_EQ", _NAMESPACE_FLAGS, 0),
        without="CAP_SYS_ADMIN",
        not_architectures=("s390", "s390x"),
    ),
    Group(
        reason="the same where the flags are the second argument",
        calls="clone",
        argument=Argument(1, "SCMP_CMP_MASKED_EQ", _NAMESPACE_FLAGS, 0),
        without="CAP_SYS_ADMIN",
        architectures=("s390", "s390x"),
    ),
    Group(
        reason="its flags lie in memory where no filter sees them; ENOSYS makes libc use clone",
        calls="clone3",
        without="CAP_SYS_ADMIN",
        errno=ENOSYS,
    ),
)

_BY_ARCHITECTURE = (
    Group(
        reason="calls of POWER",
        calls="sync_file_range2 swapcontext",
        architectures=("ppc64le",),
    ),
    Group(
        reason="calls of ARM",
        calls="""arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush
        set_tls""",
        architectures=("arm", "arm64"),
    ),
    Group(
        reason="thread-local storage on x86",
        calls="arch_prctl",
        architectures=("amd64", "x32"),
    ),
    Group(
        reason="segment descriptors of 16- and 32-bit programs (Wine)",
        calls="modify_ldt",
        architectures=("amd64", "x32", "x86"),
    ),
    Group(
        reason="PCI and runtime instrumentation of Z",
        calls="s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
        architectures=("s390", "s390x"),
    ),
    Group(
        reason="instruction cache of RISC-V",
        calls="riscv_flush_icache",
        architectures=("riscv64",),
    ),
)

# A container that was given a capability gets the calls that make it useful.
_BY_CAPABILITY = tuple(
    Group(reason=reason, calls=calls, capability=f"CAP_{capability}")
    for capability, reason, calls in (
        ("DAC_READ_SEARCH", "files by handle, past every directory", "open_by_handle_at"),
        (
            "SYS_ADMIN",
            "mounts, namespaces, quotas, and what the kernel never gave a capability of its own",
            """mount umount umount2 mount_setattr move_mount open_tree fsopen fsconfig fsmount
            fspick setns unshare clone clone3 sethostname setdomainname quotactl quotactl_fd
            fanotify_init bpf perf_event_open syslog lookup_dcookie lsm_get_self_attr
            lsm_set_self_attr lsm_list_modules""",
        ),
        ("SYS_BOOT", "restarting the host", "reboot"),
        ("SYS_CHROOT", "another root directory", "chroot"),
        ("SYS_MODULE", "kernel modules", "delete_module init_module finit_module"),
        ("SYS_PACCT", "process accounting", "acct"),
        (
            "SYS_PTRACE",
            "looking into other processes",
            "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
        ),
        ("SYS_RAWIO", "I/O ports", "iopl ioperm"),
        ("SYS_TIME", "the host's clock", "settimeofday stime clock_settime clock_settime64"),
        ("SYS_TTY_CONFIG", "hanging up terminals", "vhangup"),
        (
            "SYS_NICE",
            "where memory lies",
            "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
        ),
        ("SYSLOG", "the kernel's log", "syslog"),
        ("BPF", "BPF programs and maps", "bpf"),
        ("PERFMON", "performance counters", "perf_event_open"),
    )
)

DEFAULT: tuple[Group, ...] = _ORDINARY + _WITH_CONDITIONS + _BY_ARCHITECTURE + _BY_CAPABILITY
