"""How fast this package is on the machine that it is on: `neural-env bench`."""
