"""For PyInstaller, which asks for it through the entry point group `pyinstaller40`: where the hook for a bundle with
`fanout` lies.

Nothing imports this folder. A bundle finds plugins as an installation does, by metadata, so the hook brings that along.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["get_hook_dirs"]


def get_hook_dirs() -> list[str]:
    """Folders with hooks ("Providing PyInstaller hooks with your package", PyInstaller's manual)."""
    return [str(Path(__file__).parent)]
