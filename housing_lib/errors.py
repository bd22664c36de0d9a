"""The errors of the project: of a wrong use, and of what is away for now."""


class HousingError(Exception):
    """An error whose text says what was found, what was expected and what to do."""

    exit_code = 2


class OutageError(HousingError):
    """What is needed is away or was lost: the same command may succeed later."""

    exit_code = 1
