"""Bad input by the ten thousand: `make fuzz`, and `make fuzz SHORT=1` in a minute."""
