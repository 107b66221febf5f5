"""The folder's one error class."""


class ReportError(ValueError):
    """A file of ours that cannot be written or read; the message is the sentence the user reads."""
