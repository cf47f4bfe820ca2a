"""The one error a person can mend: what is wrong, where (file, row, field), and what to do."""


class InputError(ValueError):
    """Something that was given to kdjax (a file, a config field, a folder) cannot be used. `launch.py` prints it without a traceback."""
