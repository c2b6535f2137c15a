"""GridCLIP: a folder of videos in, ranked answers for a sentence out."""

__version__ = "0.1.0"


class GridClipError(Exception):
    """An error the user can act on: the message names the value, what was expected and what to do."""
