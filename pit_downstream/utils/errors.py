"""Errors that users can resolve."""


class InputError(ValueError):
    """An input that cannot be used. The text is for the user: what is wrong, and what to do.

    Tools print the text alone and exit with code 2. Any other exception is a bug and shows its traceback.
    """

    def __init__(self, message: str):
        # torch re-raises the error of a DataLoader worker with the worker's traceback as its text.
        if message.startswith('Caught ') and 'Original Traceback' in message:
            message = message.rpartition(f'{type(self).__name__}: ')[2].strip()
        super().__init__(message)

