"""`make detective`: evidence decides, hostile input gets a sentence, the score is kept, and no file is touched."""

import builtins
import contextlib
import functools
import json
import re

import pytest
from PIL import Image

from course import cli
from course.core import workspace
from course.core.stages import STAGES
from course.core.stubs import exercises
from course.feedback.mistakes import find_mistake, mistakes_of
from course.learn import detective
from course.learn.detective import Left, finished_stages, game, score
from course.learn.detective.line import Line
from course.learn.detective.probes import PROBES

pytestmark = pytest.mark.limit(120)


class HurriedLine(Line):
    """To a witness that gives an endless loop up sooner, and draws in fewer steps."""

    program = "-c", """
from course.learn.detective import picture, witness
witness.LIMIT = 1.0
picture.SETTINGS.steps = 4
witness.main()
"""


class LineWithoutForks(Line):
    """To a witness that answers everything itself, as on Windows; so it compiles each wrong version once."""

    program = "-c", """
from course.learn.detective import witness
witness.CAN_FORK = False
witness.main()
"""


@pytest.fixture(scope="module")
def line():
    with HurriedLine() as open_line:
        yield open_line


@pytest.fixture(scope="module")
def opened(line):
    """opened(stage, name of a mistake) -> what is said of that case"""
    return functools.cache(lambda stage, mistake: line.ask(do="open", stage=stage, mistake=mistake))


@pytest.fixture
def play(line, opened, capsys):
    """play(name, level, *typed) -> (points, or None if it was left; what was shown)"""

    def run(name: str, level: int, *typed: str) -> tuple[int | None, str]:
        stage, mistake = find_mistake(name)
        answer = opened(stage.number, mistake.name)
        others = [m for m in mistakes_of(stage.number) if m.name in answer["others"][:3]]
        waiting = iter(typed)

        def read() -> str:
            try:
                return next(waiting)
            except StopIteration:
                raise Left from None

        choices = [others[0], mistake, *others[1:]]
        case = game.Case(stage, mistake, level, answer["probe"], answer["silent"], choices, line, read)
        capsys.readouterr()
        try:
            points = case.play()
        except Left:
            points = None
        return points, capsys.readouterr().out

    return run


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """command(typed, *flags) -> (exit code, output, errors) of the whole command, with stages 1 and 2 finished."""
    for name in ("STAGE", "LEVEL", "SEED", "SCORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COURSE_EXERCISES", str(tmp_path / "exercises"))
    workspace.write_stubs()
    for stage in STAGES[:2]:
        stage.exercise.write_text(stage.solution.read_text())

    def run(typed, *flags: str) -> tuple[int, str, str]:
        waiting = iter(typed)

        def read(prompt: str = "") -> str:
            given = next(waiting, EOFError())
            if isinstance(given, BaseException):
                raise given
            return given

        monkeypatch.setattr(builtins, "input", read)
        code = cli.main(["detective", *flags])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


# --- evidence --------------------------------------------------------------------------------------------------------


def test_level_1_a_wrong_choice_costs_a_point_and_shows_its_numbers(play):
    points, shown = play("stage01/one-group", 1, "5", "1", "2")
    assert points == 3
    assert "Which explanation fits" in shown and "1 to 4 names an explanation." in shown
    assert "With that it would have been:\n  with 1 " in shown
    assert "Case closed: stage01/one-group" in shown and "MISTAKE=stage01/one-group" in shown


def test_level_2_a_call_that_shows_the_mistake(play):
    same, other = "group_norm(randn(1, 8, 4, 4), 4)", "group_norm(randn(2, 8, 4, 4), 4)"
    points, shown = play("stage01/statistics-over-the-batch-too", 2, same, f"? {same}", other)
    assert points == 3  # asking with ? costs nothing
    assert shown.count("No difference.") == 3 and "Both give the same" in shown and "relative difference" in shown
    points, shown = play("stage01/statistics-over-the-batch-too", 2, "hint", "hint", other)
    assert points == 2 and "It shows in: group_norm(" in shown and "That was the hint." in shown


def test_level_2_a_changed_argument_and_an_error_are_differences(play):
    assert play("stage02/silu-in-place", 2, "x = randn(4); silu(x); x")[0] == 4
    assert play("stage01/any-number-of-groups", 2, "group_norm(randn(1, 6, 2, 2), 4)")[0] == 4


CHANCE = [
    "str(group_norm)",
    "id(torch.ones(1))",
    "id(group_norm) // 16 % 2",
    "y = group_norm(randn(1, 4, 4, 4), 2); id(y) < id(torch.ones(1))",
    "hash(object())",
    "str(object())",
    "repr(lambda: 0)",
    "torch.ones(1).data_ptr()",
    "torch.ones(1).data_ptr() // 64 % 2",
    "import time; time.time()",
    "import time; int(1e4 * time.time()) % 2",
    "import time; time.process_time()",
    "import os; os.urandom(1)[0] % 2",
    "import uuid; str(uuid.uuid4())",
    "import random; random.SystemRandom().random() < 0.5",
    "torch.Generator().seed() % 2",
    "math.count = getattr(math, 'count', 0) + 1; math.count",
    "math.count = getattr(math, 'count', 0) + 1; math.count % 2",
    "math.count = getattr(math, 'count', 0) + 1; math.count > 1",
]
THE_SAME = [  # for all copies of both versions
    "GroupNorm(2, 4).forward.__module__",
    "group_norm.__code__.co_filename",
    "import random; random.random()",
    "import numpy; numpy.random.rand()",
    "torch.rand(1)",
    "import os; os.getpid()",
    "hash('a text')",
    "float('nan')",
]


def test_nan_is_evidence(play):
    """The suspect divides by zero."""
    assert play("stage01/eps-forgotten", 2, "group_norm(ones(1, 4, 2, 2), 2).sum().item()")[0] == 4


@pytest.mark.parametrize("code", CHANCE)
def test_what_comes_by_chance_is_no_evidence(play, code):
    for _ in range(2):
        points, shown = play("stage01/one-group", 2, code)
        assert points is None, shown
        assert "two copies of the same version" in shown or "Both give the same" in shown


@pytest.mark.parametrize("code", THE_SAME)
def test_what_no_version_has_to_do_with_is_no_evidence(play, code):
    points, shown = play("stage01/one-group", 2, code)
    assert points is None and "Both give the same" in shown


@pytest.mark.parametrize("code", [code for code in CHANCE if code.endswith(("% 2", "0.5", "> 1", "ones(1))"))])
def test_what_comes_by_chance_is_nothing_to_assert(play, code):
    *statements, last = code.split("; ")
    for _ in range(2):
        points, shown = play("stage01/one-group", 3, "; ".join([*statements, f"assert ({last}) % 32"]))
        assert points is None, shown


def test_level_3_an_assertion(play):
    right = "y = group_norm(randn(1, 4, 4, 4), 2); assert y[0, :2].mean().abs() < 1e-9"
    points, shown = play("stage01/one-group", 3, "assert True", "assert 1 + 1 == 3, 'no'", right)
    assert points == 2
    assert "right    passes\n  suspect  passes\nIt does not tell" in shown and "right    fails: no" in shown
    assert "right    passes\n  suspect  fails\n\nCase closed" in shown


def test_level_3_chance_is_no_evidence(play):
    chance = "assert randn(1) > 0"
    assert play("stage01/one-group", 3, chance)[0] is None
    # fails with the suspect in some runs only: its mean is rarely above 0.1, and never in the right version
    some = "y = group_norm(randn(1, 4, 4, 4), 2); assert y[0, :2].mean() < 0.02"
    points, shown = play("stage01/one-group", 3, some)
    assert points is None and "sets of random numbers only" in shown


def test_level_4_the_line(play):
    stage = STAGES[1]
    lines = (stage.solution.read_text().splitlines().index("        return self.shortcut(x) + h") + 1, 77)
    points, shown = play("stage02/shortcut-forgotten", 4, str(lines[1]), "1000", "hint", str(lines[0]))
    assert points == 2
    assert f"Line {lines[1]} is right." in shown and "return h" in shown and '"""' not in shown


@pytest.mark.parametrize("number", [3, 9])
def test_every_mistake_is_in_a_line_that_is_shown(number):
    stage = STAGES[number - 1]
    for mistake in mistakes_of(number):
        case = game.Case(stage, mistake, 4, "", None, [], None, None)
        shown = {i for i, _ in case.listing()}
        assert case.wrong_lines() & shown, mistake.name


def test_every_exercise_has_probes_and_nearly_every_mistake_shows():
    probed = [stage for stage in STAGES if not stage.encore or f"{stage.number}.1" in PROBES]
    assert list(PROBES) == [exercise.number for stage in probed for exercise in exercises(stage)]
    with LineWithoutForks() as line:
        for number, every in ((1, 1), (4, 1), (12, 8), (13, 8)):
            answers = [line.ask(do="open", stage=number, mistake=m.name) for m in mistakes_of(number)[::every]]
            assert sum(answer["fits"] for answer in answers) >= 0.9 * len(answers)
            assert all(answer["apart"] is None or answer["apart"] > 0 for answer in answers if answer["fits"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stage08/betas-not-squared", r"100% of the pixels differ, by \d+(\.\d)? of 255 levels on average\."),
        ("stage08/dpm-r-inverted", r"\d+% of the pixels differ"),  # shows with one sampler alone
        ("stage05/encode-divides", "Not one pixel differs: this picture does not need what is wrong."),
    ],
)
def test_a_picture_with_both_versions(play, monkeypatch, tmp_path, name, words):
    monkeypatch.setattr(game, "PICTURE", tmp_path / "pictures" / "detective.png")
    points, shown = play(name, 4, "picture", "skip")
    assert points == 0 and "`picture` draws with both" in shown
    said = " ".join(shown.split("Drawing ...")[1].split("\nIt was")[0].split())
    assert re.match(rf"\S+/detective\.png: {words}", said), said
    with Image.open(game.PICTURE) as picture:
        assert picture.width == 1100 and picture.info["Description"] in said
        assert name.partition("/")[2] not in str(picture.info)


def test_a_suspect_that_draws_nothing(play, monkeypatch, tmp_path):
    monkeypatch.setattr(game, "PICTURE", tmp_path / "detective.png")
    shown = play("stage10/ema-names-with-dots", 4, "picture")[1]
    assert "The suspect draws nothing: ValueError: " in shown and not game.PICTURE.exists()


def test_a_stage_without_a_part_in_pictures(line, capsys):
    case = game.Case(STAGES[11], mistakes_of(12)[0], 4, "", None, [], line, str)
    case.draw()
    case.advise()
    shown = capsys.readouterr().out
    assert "No picture is drawn with stage 12." in shown and "`picture`" not in shown


# --- what people type ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("group_norm(", "not Python"),
        ("a = 1", "gives no value"),
        ("x" * 3000, "3000 characters"),
        ("(" * 500, "not Python"),
        ("'\\0'.join(['a', '\\x1b[31m'])", "'a\\x00\\x1b[31m'"),
        ("\0", "not Python"),
        ("GroupNorm(2, 4)", "gives a GroupNorm"),
        ("exit()", "ends the program"),
        ("import os; os._exit(0)", "ended its process"),
        ("import os; os.kill(os.getpid(), 9)", "ended its process (SIGKILL)"),
        ("any(False for _ in iter(int, 1))", "still running after 5 seconds"),
        ("sum(iter(int, 1))", "still running after 5 seconds"),
        ("randn(100000, 100000)", "too much memory"),
        ("[0] * 10**10", "too much memory"),
        ("input()", "raises EOFError"),
        ("undefined", "raises NameError"),
        ("print('hello'); 1", "printed: hello"),
        ("raise KeyboardInterrupt; 1", "ends the program"),
        ("'x' * 10**7", " ..."),
        ("10**5000", "right    int, too long to be shown"),
    ],
    ids=lambda value: value[:12].replace("\0", "0"),
)
def test_hostile_code_gets_a_sentence_and_the_case_goes_on(play, code, words):
    points, shown = play("stage01/one-group", 1, f"? {code}" if words != "3000 characters" else code, "2")
    assert points == 4, shown
    assert words in shown and "Traceback" not in shown and "\0" not in shown and "\x1b" not in shown
    assert max(map(len, shown.splitlines())) < 3100


def test_what_is_printed_is_told_once_for_each_version(play):
    assert play("stage01/one-group", 1, "? print('hello'); 1")[1].count("printed: hello") == 2


def test_a_line_that_ends_is_opened_again(line):
    line.process.kill()
    assert "ended the process" in line.ask(do="compare", stage=1, mistake="one-group", code="1")["problem"]
    assert line.ask(do="open", stage=1, mistake="one-group")["fits"]


# --- the command -----------------------------------------------------------------------------------------------------


def test_a_case_from_beginning_to_end(command, tmp_path):
    before = {path: path.read_bytes() for path in (tmp_path / "exercises").iterdir()}
    code, shown, errors = command(["1", "2", "3", "4", "quit"], "--seed=1", "--stage=1")
    assert code == 0 and not errors and "Case closed: stage01/" in shown and "1 case solved," in shown
    kept = json.loads(score.score_path().read_text())["cases"]
    assert score.score_path() == tmp_path / ".course" / "detective.json" and len(kept) == 1
    assert {path: path.read_bytes() for path in (tmp_path / "exercises").iterdir()} == before
    code, shown, _ = command([], "--score")
    assert code == 0 and shown.startswith("1 case solved,") and "level 1 of 4" in shown
    (name,) = kept
    code, shown, _ = command(["skip", "quit"], "--seed=1", "--stage=1")  # the same seed, another case
    assert code == 0 and f"It was: {name}\n" not in shown and "0 of 4 points. 1 case solved," in shown


@pytest.mark.parametrize(("typed", "wanted"), [(EOFError(), 0), (KeyboardInterrupt(), 130), ("quit", 0)])
def test_leaving(command, monkeypatch, line, typed, wanted):
    monkeypatch.setattr(detective, "Line", lambda: contextlib.nullcontext(line))
    code, shown, errors = command([typed], "--stage=2")
    assert code == wanted and not errors
    assert shown.endswith("Until next time. 0 cases solved, 0 points, level 1 of 4.\n")
    assert not score.score_path().exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--stage=3"], "Stage 3 attention is not finished"),
        (["--stage=0"], "There is no stage '0'"),
        (["--level=5"], "LEVEL=5 is not possible"),
        (["--seed=-1"], "SEED=-1"),
    ],
)
def test_refusals(command, flags, words):
    code, shown, errors = command([], *flags)
    assert code == 2 and not shown and words in errors and len(errors.splitlines()) == 1


def test_without_a_finished_stage(command):
    for stage in STAGES[:2]:
        workspace.replace(stage, workspace.stub(stage))
    code, _, errors = command([])
    assert code == 2 and errors == "A case needs a stage that you have finished: `make test` says what is next.\n"
    STAGES[4].exercise.write_text("def (")  # says nothing about the others
    assert command([])[0] == 2


def test_a_stage_whose_tests_fail_is_not_finished(command):
    assert [stage.number for stage in finished_stages(None)] == [1, 2]
    path = score.score_path().with_name("state.json")
    path.parent.mkdir()
    path.write_text(json.dumps({"hints": {}, "reading": [], "failing": {"2": ["2.1"]}}))
    assert [stage.number for stage in finished_stages(None)] == [1]


# --- the score -------------------------------------------------------------------------------------------------------


def test_levels_rise_with_solved_cases(command):
    kept = score.Score()
    for i, level in enumerate((1, 1, 2, 2, 3, 3, 4, 4, 4)):
        assert kept.level == level
        kept.cases[f"given up {i}"] = {"level": level, "points": 0}
        kept.cases[f"solved {i}"] = {"level": level, "points": 2}
    score.write_score(kept)
    assert score.read_score() == kept and kept.points == 18


@pytest.mark.parametrize("text", ["", "[]", '{"cases": []}', '{"cases": {"a": 1, "b": {"level": 9, "points": 1}}}'])
def test_a_damaged_score_counts_as_none(command, text):
    score.score_path().parent.mkdir(exist_ok=True)
    score.score_path().write_text(text)
    assert score.read_score() == score.Score()


def test_a_score_that_cannot_be_written_is_forgotten_in_a_sentence(command, capsys):
    score.score_path().parent.write_text("a file where a folder should be")
    score.write_score(score.Score())
    assert "cannot be written" in capsys.readouterr().err
