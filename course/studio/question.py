"""Predict first: one question before something is drawn. Enter skips it, and in a pipe it is not asked."""

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """What will be seen, with a few answers to choose from."""

    text: str
    choices: tuple[str, ...]


def ask(question: Question) -> int | None:
    """The index of the choice that somebody makes at the terminal; None if nobody does."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    print(f"\nBefore you look: {question.text}")
    for letter, choice in zip("abcd", question.choices):
        print(f"  {letter}) {choice}")
    letters = "abcd"[: len(question.choices)]
    while True:
        try:
            said = input(f"{', '.join(letters[:-1])} or {letters[-1]} (Enter: just show me): ").strip().lower()
        except EOFError:
            return None
        if not said:
            return None
        if said.rstrip(").") in letters:
            return letters.index(said[0])


def verdict(question: Question, guess: int | None, answer: int) -> str:
    """The question and its answer, for the words under a picture; what was guessed, if anything was."""
    text = f"Asked before: {question.text} Answer: {question.choices[answer]}."
    if guess is None:
        return text
    return text + (" That is what you said." if guess == answer else f" You said: {question.choices[guess]}.")
