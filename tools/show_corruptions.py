"""Draw the corruptions of an image. `--help` lists the flags."""

from pit_downstream.cli.show_corruptions import main

if __name__ == '__main__':
    main()
