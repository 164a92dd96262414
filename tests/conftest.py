"""What pytest does with these tests stands in course/learn/plugin.py, which `make watch` and `make mutants` use too."""

from pathlib import Path

import pytest

pytest_plugins = ["course.learn.plugin"]

# What takes longest comes first: begun last, it would run beside nothing else.
LONGEST = (
    "page/test_page.py",
    "course/test_alternatives.py",
    "course/test_messages.py",
    "course/test_runner.py",
    "course/test_detective.py",
    "course/test_claims.py",
    "course/test_walkthrough.py",
    "course/test_training.py",
    "course/test_generate.py",
    "course/test_speed.py",
    "course/test_show.py",
    "course/test_experiments.py",
    "course/test_mistakes.py",
    "course/test_light.py",
    "course/test_films.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """Warnings fail a test of the solutions (see pyproject.toml), but not of a learner's file: right is right."""
    if config.getoption("--blocks") == "exercises":
        for line in ("default", "ignore::DeprecationWarning", "ignore::FutureWarning"):
            config.addinivalue_line("filterwarnings", line)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {Path(__file__).parent / file: rank for rank, file in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(LONGEST)))


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint of random weights, with what belongs beside it."""
    from tests.stages.small_model import write_checkpoint

    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder)
    return folder
