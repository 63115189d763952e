"""Sweeps of biologically constrained recurrent networks of human visual working memory."""

__version__ = "0.1.0"
