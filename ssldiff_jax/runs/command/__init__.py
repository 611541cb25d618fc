"""The command: its words, what it can name, and the lines that it ends with."""
