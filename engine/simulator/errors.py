"""The one error of the simulator."""


class SimulatorError(ValueError):
    """A simulation that cannot be run as asked; the message is the sentence the user reads."""
