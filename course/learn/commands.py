"""`make test` and `make watch`."""

from dataclasses import dataclass

from course.core.options import OneStage


@dataclass
class TestOptions(OneStage):
    pass


def test(options: TestOptions) -> int:
    from course.learn import testing

    return testing.test_one(options.stage, None) if options.stage else testing.test_in_order(None)


def watch(options: OneStage) -> int:
    from course.learn.watch import main

    return main(options.stage)
