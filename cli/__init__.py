"""The command line of stscale; installed as the package `stscale_cli`."""
