"""One half of a race: two names, exchanged without a pause until somebody ends us."""

import ctypes
import sys

RENAME_EXCHANGE, AT_FDCWD = 2, -100


if __name__ == "__main__":
    one, other = (name.encode() for name in sys.argv[1:])
    libc = ctypes.CDLL(None)
    while True:
        libc.renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE)
