"""The command ``vwm``, which kills itself with SIGKILL inside a write: ``die_in_write.py fsync 7 train DIR``.

The first argument names the system call (of module os) in front of which the process dies, the second says at which
time it is called. A checkpoint, state.json and the history all go through these calls.
"""

import os
import signal
import sys

call, number = sys.argv.pop(1), int(sys.argv.pop(1))
original = getattr(os, call)
calls = 0


def deadly(*arguments, **named):
    global calls
    calls += 1
    if calls == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **named)


setattr(os, call, deadly)

from vwm.cli.run import main  # noqa: E402  (the call is replaced before anything uses it)

main()
