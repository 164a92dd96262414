"""What people are told when something is not possible."""


class Refusal(ValueError):
    """Something that cannot be done; the message is one sentence for the person who asked."""


def first_line(error: BaseException, longest: int = 300) -> str:
    """The first line of what an exception says, or its type if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:longest].rstrip(".")
