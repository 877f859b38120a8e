"""`hybrid-memory ...`: the stream from a terminal.

Every command finds the stack that runs here by itself. Results go to standard output, what is told
about them to standard error; with --json, standard output is for programs. Importing this package is
quick: what a command needs beside typer and rich, it imports when it runs.
"""

from pipeline.cli.commands import app, main

__all__ = ["app", "main"]
