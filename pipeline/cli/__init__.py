"""`hybrid-memory ...`: the stream from a terminal.

Every command finds the stack that runs here by itself. Results go to standard output, what is told
about them to standard error; with --json, standard output is for programs. Importing this package is
quick: what a command needs beside typer and rich, it imports when it runs.
"""


def main() -> None:
    """The entry point of the `hybrid-memory` script."""
    try:
        from pipeline.cli.commands import app
    except KeyboardInterrupt:  # nothing has begun yet: a trace would tell nobody anything
        raise SystemExit(130) from None
    app()
