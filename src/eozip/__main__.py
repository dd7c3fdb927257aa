"""`python -m eozip`: the command line where no console script is installed."""

from eozip.cli import main

main()
