"""The one exception whose message is meant for the person at the keyboard."""


class UserError(Exception):
    """A mistake of the user's: the message says what was given, what was expected and what to do.

    The command lines print the message without a traceback and leave with exit code 2. A bug of the program's
    must never be raised as a UserError.
    """
