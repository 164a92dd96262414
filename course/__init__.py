"""The machinery of the course: stages, stubs, assembling, commands. The model itself lives in solutions/ and exercises/."""
