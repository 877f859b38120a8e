"""`python -m pipeline.cli` is `hybrid-memory`."""

from pipeline.cli.commands import main

if __name__ == "__main__":
    main()
