"""Print the cost of a model. `--help` lists the flags."""

from pit_downstream.cli.get_complexity import main

if __name__ == '__main__':
    main()
