"""What a failed test says: comparison, diagnosis by known mistakes, first divergence, reading."""
