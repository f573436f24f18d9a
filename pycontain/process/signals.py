"""Signals by their names and numbers, signal(7)."""

from __future__ import annotations

import signal as signals


def parse_signal(given: str | int) -> str:
    """The name of a signal from its number or its name, with or without ``SIG``; ``SIGRTMIN+3`` is one too."""
    number = 0
    if isinstance(given, str | int) and not isinstance(given, bool):
        number = signal_number(str(given))
    if number not in signals.valid_signals():
        raise ValueError(f"{given!r} is no signal; signal(7) lists them")
    return signal_name(number)


def signal_number(name: str) -> int:
    """The number of a signal's name, 0 when it is none."""
    text = name.upper().removeprefix("SIG")
    base, sign, offset = text.partition("+" if "+" in text else "-")
    try:
        number = int(base) if base.isdigit() else signals.Signals[f"SIG{base}"].value
        return number + (int(sign + offset) if sign else 0)
    except (KeyError, ValueError):
        return 0


def signal_name(number: int) -> str:
    """The name of a signal, with ``SIG``; those in real time are counted from the first."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signals.SIGRTMIN}"
