"""Every system call, netlink message and kernel file: thin, typed, no policy, idempotent."""
