"""What people are told when something is not possible."""


class Refusal(ValueError):
    """Something that cannot be done; the message is one sentence for the person who asked."""


def printable(text: str) -> str:
    """The text with control characters escaped, but for tabs and new lines: no file tells the terminal what to do."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException, longest: int = 300) -> str:
    """The first line of what an exception says, or its type if it says nothing."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return printable(line[:longest]).rstrip(".")
