"""The optimizer's one error class."""


class OptimizerError(ValueError):
    """A wish, a study or a measurement that cannot be; the message is the sentence the user reads."""
