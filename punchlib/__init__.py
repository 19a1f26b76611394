"""punchlib: FIFO streams between machines, punched through the NATs.

    async with punchlib.connect("key", me=0, peer=1) as stream:
        await stream.send(b"hello")

Importing this package must stay free: `r_split` and its siblings start in a few milliseconds
and go through here. Anything heavier than a string is resolved on first use.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    # Without `typing`: its import costs more than all of this.
    from punchlib.api import connect, connect_blocking

__version__ = "0.1.0"
__all__ = ["__version__", "connect", "connect_blocking"]


def __getattr__(name: str) -> object:
    if name in ("connect", "connect_blocking"):
        from punchlib import api

        return getattr(api, name)
    raise AttributeError(f"module 'punchlib' has no attribute {name!r}")
