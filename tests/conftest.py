"""What pytest does with these tests stands in course/learn/plugin.py, which `make watch` and `make mutants` use too."""

import pytest

pytest_plugins = ["course.learn.plugin"]


def pytest_configure(config: pytest.Config) -> None:
    """Warnings fail a test of the solutions (see pyproject.toml), but not of a learner's file: right is right."""
    if config.getoption("--blocks") == "exercises":
        for line in ("default", "ignore::DeprecationWarning", "ignore::FutureWarning"):
            config.addinivalue_line("filterwarnings", line)
