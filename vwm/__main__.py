"""``python -m vwm`` is the command ``vwm``, as torchrun needs it."""

from vwm.cli.run import main

main()
