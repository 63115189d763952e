"""The two commands, vwm and vwm-sweep: parse, call, print."""
