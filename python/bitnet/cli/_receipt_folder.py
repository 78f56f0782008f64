"""The folder of --receipt-dir."""

import argparse
import os
from pathlib import Path

from .. import Receipt


class ReceiptFolder:
    """Writes the receipts of a command into a folder: one file for each, and `inference.json`, a copy of the newest."""

    def __init__(self, folder: Path, command: str) -> None:
        """Make the folder. Raises OSError if files cannot be written into it."""
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "cannot write into this folder; choose another --receipt-dir", str(folder))
        self.folder = folder
        self.command = command
        self.count = 0

    def save(self, receipt: Receipt) -> None:
        """Write a receipt. The process id and a count keep the names of simultaneous answers apart."""
        self.count += 1
        stamp = receipt.timestamp.replace("-", "").replace(":", "")
        receipt.save(self.folder / f"{self.command}-{stamp}-{os.getpid()}-{self.count}.json")
        receipt.save(self.folder / "inference.json")


def add_receipt_dir(command: argparse.ArgumentParser) -> None:
    """Add --receipt-dir."""
    command.add_argument(
        "--receipt-dir",
        "--emit-receipt-dir",
        type=Path,
        metavar="DIR",
        help="write each answer's receipt (what was computed, and how) into this folder as JSON, and a copy of the "
        "newest as inference.json (default: write none)",
    )


def receipt_folder(options: argparse.Namespace, command: str) -> ReceiptFolder | None:
    """The folder that --receipt-dir names, if it was given."""
    return ReceiptFolder(options.receipt_dir, command) if options.receipt_dir else None
