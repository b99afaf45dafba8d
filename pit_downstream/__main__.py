"""`python -m pit_downstream` is the command pit-downstream."""

from pit_downstream.cli.main import main

main()
