"""The program: its commands, and the words they print."""
