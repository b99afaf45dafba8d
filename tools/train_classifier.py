"""Train a classifier. `--help` lists the flags."""

from pit_downstream.cli.train_classifier import main

if __name__ == '__main__':
    main()
