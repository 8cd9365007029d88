"""Splits command lines as Python does, to compare with.

Each line of standard input is a command line in hexadecimal digits. For each one prints its words in the same
way, each after a space, or ! when it is none.
"""

import shlex
import sys

for line in sys.stdin:
    # Latin-1 has a character for every byte.
    text = bytes.fromhex(line.strip()).decode("latin-1")
    try:
        words = shlex.split(text)
        print("".join(" " + word.encode("latin-1").hex() for word in words))
    except ValueError:
        print("!")
