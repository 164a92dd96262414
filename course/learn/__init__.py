"""From a save to a verdict: tests, board, hints, watch, doctor."""
