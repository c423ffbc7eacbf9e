"""Warnings that would repeat with every request."""

from __future__ import annotations

from logging import Logger

_MOST = 64


class WarnOnce:
    """Logs a text the first time; of different ones the first 64."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._said: set[str] = set()

    def __call__(self, text: str) -> None:
        """Says it, unless it was said."""
        if text not in self._said and len(self._said) < _MOST:
            self._said.add(text)
            self._logger.warning("Larder: %s", text)
