"""What can be wrong with something the user gave: one sentence with the remedy."""

from __future__ import annotations

from pathlib import Path


class InputError(ValueError):
    """The user gave something that cannot be used; the message says what, and what to do.

    >>> print(InputError("the model returns 3 outputs for 10 classes", "give it 10 outputs"))
    the model returns 3 outputs for 10 classes; give it 10 outputs
    """

    def __init__(self, reason: str, remedy: str) -> None:
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"{reason}; {remedy}")


class DataError(InputError):
    """A data file or array that cannot be used as it is.

    >>> print(DataError("a.gz", "the file ends too early", "fetch it again"))
    a.gz: the file ends too early; fetch it again
    """

    def __init__(self, path: str | Path, reason: str, remedy: str) -> None:
        self.path = str(path)
        super().__init__(f"{path}: {reason}", remedy)
        self.reason = reason
