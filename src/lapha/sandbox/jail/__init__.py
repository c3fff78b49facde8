"""The bubblewrap jail: two walls, a supervisor between them, and one forked process for each state.

::

    lapha ── socket ── [ launcher, supervisor ── [ template ─ fork ─ state ─ fork ─ run … ] ]
                         outer wall: bwrap          inner wall: bwrap

Inside there is no network, no /proc, no writable folder but a run's own, and no system call that is not on a list. Every
process in it is one branch's and has one thread; it can neither fork nor start anything by itself. The one way out is a
made-up system call by which a process hands its result to the supervisor and waits for the next command: the kernel
suspends it there, tells the supervisor which process asks, and only the supervisor can wake it. Forking a branch, and
going into namespaces of its own for a run and out of them again, is the same in reverse: the supervisor tells a waiting
process to do it, and lets exactly that one system call through. There is nothing to forge, since who speaks is told by
the kernel, and nothing to leave behind, since a process that waits is memory that cannot run, and all of them end with
the jail. ``docs/sandbox.md`` has a sequence diagram.

To be read in this order:

* `walls`: what the two walls show of the machine. `launcher`: the first process behind the outer one.
* `seccomp`, `confine`: which system calls are allowed, and how a process gives up the others, and its rights.
* `guest`: what runs inside. `wire`: the messages.
* `kernel`: what the supervisor asks the kernel. `broker`: the changes of namespaces that it lets through.
* `process`, `registry`: the processes of a jail. `states`: what they hold. `runs`: one run, and its limits.
* `supervisor`, `timers`: sessions on one side, processes on the other.

These modules use the standard library alone, and are all that exists of lapha behind the walls.
"""
