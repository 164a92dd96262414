"""What a stage is: its files, its exercises, the blocks that are assembled of them. Stands on solutions/ alone."""
