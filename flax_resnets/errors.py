"""The one error a user's mistake raises."""


class UserError(ValueError):
    """A mistake in what the user asked for or supplied: a flag, a config field, a file.

    The message is one line that names the field or file, its value, and what would be right. The command line
    prints that line to stderr and exits with code 2; a traceback would only hide it.

    Example:
        >>> raise UserError("batch_size=0: must be at least 1")
        Traceback (most recent call last):
        ...
        flax_resnets.errors.UserError: batch_size=0: must be at least 1
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))
