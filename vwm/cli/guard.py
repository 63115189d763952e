"""What both commands do around every call: a user's mistake is a message and exit code 2, never a traceback."""

import sys
from collections.abc import Callable

from vwm.errors import UserError


def guarded(app: Callable[[], object]) -> None:
    """Run a command line; exit codes: 0 done, 1 a run failed, 2 refused, 130 stopped on request."""
    try:
        app()
    except UserError as error:
        red, plain = ("\033[31m", "\033[0m") if sys.stderr.isatty() else ("", "")
        print(f"{red}{error}{plain}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)
