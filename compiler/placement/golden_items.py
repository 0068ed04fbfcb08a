"""What every execution of a spec's pre-processing is run on, by what a request's item is."""

from __future__ import annotations

from specs.manifest import Takes

__all__ = ["GOLDEN_FILES", "GOLDEN_TEXTS", "golden_files"]

GOLDEN_FILES: dict[Takes, str] = {"image": "images", "audio": "sounds"}
"""The folder of golden files in an artifact, below ``golden/``."""
GOLDEN_TEXTS = {
    "one word": "word",
    "sentence": "The quick brown fox jumps over the lazy dog.",
    "long": "Sentences follow each other, and none of them is the last one. " * 60,
    "other scripts": "Grüße, Ελλάδα, 東京, مرحبا, 🙂 and a\tTab\nand a line",
    "spaces": "   ",
}
"""The texts, which need no files."""


def golden_files(takes: Takes) -> dict[str, bytes]:
    """The golden files by name; none where a request brings no file."""
    if takes == "image":
        from compiler.placement.golden_images import golden_images

        return golden_images()
    if takes == "audio":
        from compiler.placement.golden_sounds import golden_sounds

        return golden_sounds()
    return {}
