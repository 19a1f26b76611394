"""punchlib: FIFO streams between machines, punched through the NATs.

Importing this package must stay free: `r_split` and its siblings start in a few milliseconds
and go through here. Anything heavier than a string is resolved on first use.
"""

__version__ = "0.1.0"
