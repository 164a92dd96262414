"""What pytest does with these tests stands in course/learn/plugin.py, which `make watch` and `make mutants` use too."""

from pathlib import Path

import pytest

pytest_plugins = ["course.learn.plugin"]


def pytest_configure(config: pytest.Config) -> None:
    """Warnings fail a test of the solutions (see pyproject.toml), but not of a learner's file: right is right."""
    if config.getoption("--blocks") == "exercises":
        for line in ("default", "ignore::DeprecationWarning", "ignore::FutureWarning"):
            config.addinivalue_line("filterwarnings", line)


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint of random weights, with what belongs beside it."""
    from tests.stages.small_model import write_checkpoint

    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder)
    return folder
