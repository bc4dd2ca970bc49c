"""`python -m stscale_cli`."""

from stscale_cli.app import main

main()
