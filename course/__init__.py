"""The machinery of the course: stages, stubs, assembling, commands. The model is in solutions/ and exercises/."""
