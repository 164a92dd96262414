"""What the makers of the course run: benchmarks, tests of the tests, the pictures of the README."""
