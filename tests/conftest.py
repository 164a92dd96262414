"""What pytest does with these tests stands in course/learn/plugin.py, which `make watch` and `make mutants` use too."""

pytest_plugins = ["course.learn.plugin"]
