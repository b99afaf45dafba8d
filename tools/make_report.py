"""Create an HTML report of all results. `--help` lists the flags."""

from pit_downstream.cli.make_report import main

if __name__ == '__main__':
    main()
