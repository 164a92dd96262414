"""`python -m course COMMAND`."""

import sys

if sys.version_info < (3, 11):
    sys.exit("This needs Python 3.11 or newer: say PYTHON=python3.12, for example.")

try:
    from course.cli import main
    from course.core import screen

    screen.prepare()
    sys.exit(main())
except KeyboardInterrupt:  # so early that no command has begun
    sys.exit(130)
