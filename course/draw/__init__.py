"""From a checkpoint and a prompt to a picture in a file."""
