"""`python -m stscale_cli`."""

from .app import main

main()
