"""One declaration for each option of a command: a field of the command's dataclass of options.

From the field follow the flag (--steps 20), the variable of make and of the environment (STEPS=20), the conversion, the
check and the help. Standard library only: some commands run before anything is installed.
"""

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self, get_args, get_type_hints

from course.core.messages import Refusal
from course.core.stages import Stage, find_stage

LONGEST_TEXT = 10_000  # characters of a value; CLIP reads 77 tokens


@dataclass(frozen=True)
class Rule:
    """What is known of an option besides its type and its default.

    Attributes:
        help: what it means.
        least, most: the bounds of a number, which are allowed themselves.
        above: a lower bound that is not allowed itself.
        choices: all that is possible; () if that is not a list.
        usual: a value to begin with, for the message of a refusal.
        empty: whether an empty text is a value; otherwise it counts as not given.
        hidden: whether it is left out of the help.
    """

    help: str
    least: float | None = None
    most: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    usual: str = ""
    empty: bool = False
    hidden: bool = False

    def wanted(self) -> str:
        """The values that are possible, for a message; "" if there is no rule."""
        if self.choices:
            return f"choose {', '.join(self.choices[:-1])} or {self.choices[-1]}"
        usual = f" ({self.usual} is usual)" if self.usual else ""
        least, most, above = (None if n is None else shortened(n) for n in (self.least, self.most, self.above))
        if above is not None:
            return f"choose a number above {above}" + (f", up to {most}" if most else "") + usual
        if least is not None:
            return f"choose {least}" + (f" to {most}" if most is not None else " or more") + usual
        return ""

    def allows(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        if not isinstance(value, (int, float)):
            return True
        least, most = -math.inf if self.least is None else self.least, math.inf if self.most is None else self.most
        finite = isinstance(value, int) or math.isfinite(value)
        return finite and least <= value <= most and (self.above is None or value > self.above)


def option(default: Any, help: str, **rule: Any) -> Any:
    """A field of a dataclass of options; `rule` holds what Rule knows besides the help."""
    return field(default=default, metadata={"rule": Rule(help, **rule)})


def like(options: type["Options"], name: str, default: Any, help: str = "") -> Any:
    """The same option as another command's, with a default (and a help) of its own."""
    rule = options.rules()[name]
    return field(default=default, metadata={"rule": replace(rule, help=help or rule.help)})


class Options:
    """The options of one command. A subclass is a dataclass whose fields are made by `option`.

    A field's type says how its text is read: int, float, bool, str, Path or Stage, or one of them or None. A name that
    is a word of Python ends with an underscore (from_), the flag and the variable do not.
    """

    given: ClassVar[Mapping[str, Any]] = {}  # of an object: what the command line and the environment said
    epilog: ClassVar[str] = ""  # what else the help says

    @classmethod
    def rules(cls) -> dict[str, Rule]:
        return {f.name: f.metadata["rule"] for f in fields(cls) if "rule" in f.metadata}  # pyrefly: ignore  # a subclass is a dataclass

    @classmethod
    def parse(cls, arguments: Sequence[str], command: str, description: str) -> Self:
        """Reads the command line, and the environment where the command line says nothing.

        Raises:
            Refusal: naming the option, what came and what is wanted.
            SystemExit: after --help, or for a flag that is not known.
        """
        parser = argparse.ArgumentParser(
            prog=f"python -m course {command}",
            description=f"{description} Every option can also be a variable: make {command} NAME=value.",
            epilog=cls.epilog,
            allow_abbrev=False,
        )
        kinds = get_type_hints(cls)
        for name, rule in cls.rules().items():
            flag: dict[str, Any] = {"nargs": "?", "const": "1"} if _kind(kinds[name]) is bool else {}
            text = argparse.SUPPRESS if rule.hidden else _help(rule, kinds[name], getattr(cls, name)).replace("%", "%%")
            metavar = None if flag else variable(name)
            parser.add_argument(f"--{_plain(name)}", dest=name, help=text, metavar=metavar, **flag)
        read = vars(parser.parse_args(arguments))
        given = {}
        for name, rule in cls.rules().items():
            text = read[name] if read[name] is not None else os.environ.get(variable(name))
            if text is None or (text == "" and not rule.empty):
                continue
            given[name] = convert(name, text, kinds[name])
            check(name, given[name], rule)
        options = cls(**given)
        options.__dict__["given"] = given
        return options

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Options out of values that a file holds.

        Raises:
            TypeError: for a value of another kind than the field's.
            Refusal: for a value of the right kind that is not possible.
        """
        for name, kind in get_type_hints(cls).items():
            if name in values:
                kinds, value = get_args(kind) or (kind,), values[name]
                if type(value) not in kinds and not (type(value) is int and float in kinds):
                    raise TypeError(f"{name} is {value!r}")
                check(name, value, cls.rules().get(name))
        return cls(**values)


@dataclass
class NoOptions(Options):
    """Of a command that has none."""


@dataclass
class OneStage(Options):
    """Of a command about one stage, or about all of them."""

    stage: Stage | None = option(None, "number or name of the stage")

    def chosen(self) -> Stage:
        """The stage, for a command that cannot do without. A Refusal if there is none."""
        if self.stage is None:
            raise Refusal("Which stage? Say for example STAGE=3 (python -m course: --stage 3).")
        return self.stage


def expanded(name: str, text: str | Path) -> Path:
    """The path of an option of this name, with ~ for a home folder. A Refusal if nobody here has that name."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise Refusal(f"{variable(name)}={text} is in the home folder of a user who is not known here.") from None


def _plain(name: str) -> str:
    return name.strip("_").replace("_", "-")


def variable(name: str) -> str:
    """The name of an option as a variable of make and of the environment."""
    return name.strip("_").upper()


def _kind(annotation: Any) -> Any:
    return next((kind for kind in get_args(annotation) if kind is not type(None)), annotation)


def _help(rule: Rule, annotation: Any, default: Any) -> str:
    """The help, with the bounds and the default where the help itself names no default."""
    kind = _kind(annotation)
    remarks = [rule.wanted().removeprefix("choose ")] if not rule.choices else [", ".join(rule.choices)]
    if kind is bool and "default" not in rule.help:
        remarks.append("1 or 0" + ("" if default is None else f", default {int(default)}"))
    elif default not in (None, "", MISSING) and kind is not bool and "default" not in rule.help:
        remarks.append(f"default {default:g}" if isinstance(default, float) else f"default {default}")
    remarks = [remark for remark in remarks if remark]
    return rule.help + (f" ({'; '.join(remarks)})" if remarks else "")


def convert(name: str, text: str, annotation: Any) -> Any:
    """A value from its text. A Refusal names the option if the text is none of this kind."""
    kind, name = _kind(annotation), variable(name)
    if kind is bool:
        if text.lower() in ("1", "yes", "true", "on"):
            return True
        if text.lower() in ("0", "no", "false", "off", ""):
            return False
        raise Refusal(f"{name}={shortened(text)} is neither 1 nor 0.")
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise Refusal(f"{name}={shortened(text)} is not a {'whole number' if kind is int else 'number'}.") from None
    if kind is Stage:
        return find_stage(text)
    return expanded(name, text) if kind is Path else text


def check(name: str, value: Any, rule: Rule | None) -> None:
    """A Refusal unless a value of the right kind keeps to the rule, and is text that can be written to a file."""
    try:
        str(value).encode()
    except UnicodeEncodeError:
        raise Refusal(f"{variable(name)} is not UTF-8: it holds bytes that are no characters.") from None
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        raise Refusal(f"{variable(name)} has {len(value):,} characters, and {LONGEST_TEXT:,} are possible.")
    if rule and value is not None and not rule.allows(value):
        raise Refusal(f"{variable(name)}={shortened(value)} is not possible: {rule.wanted()}.")


def shortened(value: Any) -> str:
    """A value as a message shows it."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
