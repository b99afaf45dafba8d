"""Evaluate a model in any benchmark. `--help` lists the flags."""

from pit_downstream.cli.evaluate import main

if __name__ == '__main__':
    main()
