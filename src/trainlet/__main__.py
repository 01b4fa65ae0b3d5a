"""`python -m trainlet`: the command line."""

from trainlet.cli import main

main()
