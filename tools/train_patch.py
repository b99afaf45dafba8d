"""Train an adversarial patch against a detector. `--help` lists the flags."""

from pit_downstream.cli.train_patch import main

if __name__ == '__main__':
    main()
