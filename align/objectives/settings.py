"""Checks that settings of objectives share; messages begin with the setting's name."""

import math


def check_positive(**settings: float) -> None:
    """Refuse settings that are not greater than 0 and finite.

    Raises:
        ValueError: naming the first.
    """
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be greater than 0 and finite, got {value}")


def check_not_negative(**settings: float) -> None:
    """Refuse settings that are below 0 or not finite.

    Raises:
        ValueError: naming the first.
    """
    for name, value in settings.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be at least 0 and finite, got {value}")


def check_finite(**settings: float) -> None:
    """Refuse settings that are not finite.

    Raises:
        ValueError: naming the first.
    """
    for name, value in settings.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}")


def check_smoothing(label_smoothing: float, *, zero: bool = True) -> None:
    """Refuse a share of wrong labels outside [0, 0.5), or outside (0, 0.5) where ``zero`` is False.

    Raises:
        ValueError: at 0.5 and above labels say nothing, or the opposite.
    """
    if not (label_smoothing >= 0 if zero else label_smoothing > 0) or not label_smoothing < 0.5:
        bracket = "[" if zero else "("
        raise ValueError(f"label_smoothing must lie in {bracket}0, 0.5), got {label_smoothing}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a word that is none of the choices.

    Raises:
        ValueError: naming them.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
