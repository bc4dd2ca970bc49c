"""Hashes of inputs, to know whether a stage's inputs are unchanged."""

import hashlib
from pathlib import Path

# Up to this many bytes every byte is hashed; beyond it, sizes and modification times stand for the content.
FULL = 2 << 30


def fingerprint(path: Path) -> tuple[int, str]:
    """Return the size in bytes and a hash of a file or folder.

    Inputs up to 2 GiB are hashed whole; larger ones by the names, sizes and modification times of their files,
    so that a job does not read a terabyte to learn that nothing changed.
    """
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    total = sum(f.stat().st_size for f in files)
    found = hashlib.blake2b(digest_size=16)
    for file in files:
        name = file.name if path.is_file() else str(file.relative_to(path))
        found.update(f"{name}\0{file.stat().st_size}\0".encode())
        if total <= FULL:
            with file.open("rb") as content:
                while block := content.read(1 << 20):
                    found.update(block)
        else:
            found.update(str(file.stat().st_mtime_ns).encode())
    return total, found.hexdigest()
