"""The bubblewrap jail: one supervisor process outside, one namespace inside, one forked process a snapshot.

::

    lapha ── socket ── supervisor ── bwrap (namespaces) ── template (Python, numpy, sympy; runs nobody's code)
                           │                                   └─ fork ─ snapshot ─ fork ─ snapshot …
                           └───────── seccomp notifications ──────────┘

Inside the jail there is no network, no /proc, no writable directory but a run's own, and no system call that is not
on a list. Every process in it is one branch's and has one thread; it can neither fork nor start anything by itself.
The one way out is a made-up system call by which a process hands its result to the supervisor and waits for the next
command: the kernel suspends it there, tells the supervisor which process asks, and only the supervisor can wake it.
Forking a branch is the same in reverse: the supervisor tells a waiting process to fork, and lets exactly that one
`clone` through. There is nothing to forge, since who speaks is told by the kernel, and nothing to leave behind, since
a process that waits cannot run, and all of them end with the jail.

These modules use the standard library alone, so that the supervisor starts fast and stays small.
"""
