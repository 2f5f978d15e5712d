"""
Where does a training run keep how far it has come? One file below the state folder, until it has committed.

The file is replaced whole after each epoch, so a killed run leaves the last whole epoch. Several runs of one
day and method may share it: all of them end in the same bytes.
"""

import hashlib
import logging
import os
from contextlib import suppress
from datetime import date
from pathlib import Path
from uuid import uuid4

import safetensors
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from models.increc.weights import digest_tensors

FACTS, DIGEST = "facts", "digest"

log = logging.getLogger(__name__)


class TrainingState:
    """The file ``<var>/training/<day>.<method>.safetensors``: a ``models.increc.progress.Keeper``."""

    def __init__(self, var: Path, day: date, method: str) -> None:
        """Name the file; nothing is read or written yet."""
        self.path = var / "training" / f"{day}.{method}.safetensors"

    def load(self) -> tuple[dict[str, Tensor], str] | None:
        """Give what the file holds; None where there is none, or one that is damaged, with a warning."""
        try:
            with safetensors.safe_open(self.path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                facts, kept = file.metadata()[FACTS], file.metadata()[DIGEST]
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError, TypeError) as error:
            log.warning("%s cannot be read (%r): it is not used, training starts anew", self.path, error)
            return None
        if kept != _digest(tensors, facts):
            log.warning("%s does not match its digest: it is not used, training starts anew", self.path)
            return None
        return tensors, facts

    def save(self, tensors: dict[str, Tensor], facts: str) -> None:
        """
        Replace the file, once the new one is safe on the disk.

        Raises:
            OSError: it cannot be written, because the disk is full say; the old one stays.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._remove_unfinished()
        temporary = self.path.with_name(f"{self.path.name}.{uuid4().hex}")
        try:
            safetensors.torch.save_file(tensors, temporary, {FACTS: facts, DIGEST: _digest(tensors, facts)})
        except (SafetensorError, OSError) as error:
            temporary.unlink(missing_ok=True)
            raise OSError(f"cannot write the training state {temporary}: {error}; make room") from error
        # Another run of the same day and method may take an unfinished file away; its own is as good.
        with suppress(FileNotFoundError):
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, self.path)

    def forget(self) -> None:
        """Remove the file: its run has committed."""
        self._remove_unfinished()
        self.path.unlink(missing_ok=True)

    def _remove_unfinished(self) -> None:
        for path in self.path.parent.glob(f"{self.path.name}.*"):
            path.unlink(missing_ok=True)


def _digest(tensors: dict[str, Tensor], facts: str) -> str:
    """Digest what is kept: safetensors itself does not tell a damaged tensor from a whole one."""
    return hashlib.sha256(f"{digest_tensors(tensors)} {facts}".encode()).hexdigest()
