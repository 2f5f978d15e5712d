"""
How is a model kept? One safetensors blob with its config and a digest inside: no pickle, no code.

safetensors keeps no checksum of its own, so the digest is what tells a damaged file from a whole one.
"""

import hashlib
import json
from typing import TypeVar

import safetensors.torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from models.increc.config import IncRecConfig

FORMAT = 1
INCREC = "increc"

Config = TypeVar("Config", bound=BaseModel)


class CorruptModel(ValueError):
    """The bytes are not a whole model of the kind asked for."""


def pack(tensors: dict[str, Tensor], config: BaseModel, kind: str = INCREC) -> bytes:
    """Write tensors and config of a ``kind`` of model; the same ones always give the same bytes."""
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    facts = {"format": FORMAT, "config": config.model_dump(mode="json"), "digest": digest_tensors(tensors)}
    return safetensors.torch.save(tensors, metadata={kind: json.dumps(facts, sort_keys=True)})


def unpack(
    content: bytes, config_class: type[Config] = IncRecConfig, kind: str = INCREC
) -> tuple[dict[str, Tensor], Config]:
    """
    Read what ``pack`` wrote.

    Raises:
        CorruptModel: the bytes are damaged or of something else.
    """
    try:
        tensors = safetensors.torch.load(content)
        n_header = int.from_bytes(content[:8], "little")
        facts = json.loads(json.loads(content[8 : 8 + n_header])["__metadata__"][kind])
        config, kept_digest, kept_format = config_class(**facts["config"]), facts["digest"], facts["format"]
    except (SafetensorError, KeyError, ValueError) as error:
        reason = f"{error.error_count()} config errors" if isinstance(error, ValidationError) else repr(error)
        raise CorruptModel(f"{len(content)} bytes are no {kind} model ({reason}); train it again") from error
    if kept_format != FORMAT:
        raise CorruptModel(f"the model has format {kept_format}, this code reads {FORMAT}; train it again")
    if kept_digest != digest_tensors(tensors):
        raise CorruptModel("the model's weights do not match its digest: the file is damaged; restore it")
    return tensors, config


def load_network(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """
    Put the tensors into a network.

    Raises:
        CorruptModel: they are of another shape; names each one.
    """
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    differ = [
        f"{name} {found.get(name, 'absent')} where it needs {wanted.get(name, 'none')}"
        for name in sorted({*wanted, *found})
        if wanted.get(name) != found.get(name)
    ]
    if differ:
        raise CorruptModel(f"the model's tensors do not fit its config: {'; '.join(differ)}; train it again")
    network.load_state_dict(tensors)


def config_json(config: BaseModel) -> bytes:
    """Write the config for a reader."""
    return (config.model_dump_json(indent=2) + "\n").encode()


def read_config(content: bytes) -> IncRecConfig:
    """
    Read what ``config_json`` wrote; a field that was added since has its default.

    Raises:
        CorruptModel: it is no config.
    """
    try:
        return IncRecConfig.model_validate_json(content)
    except ValidationError as error:
        raise CorruptModel(f"config.json is no config of IncRec: {error.errors()[0]['msg']}") from error


def with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Pick the tensors under ``prefix`` and take it off their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def not_finite(tensors: dict[str, Tensor]) -> str | None:
    """Name a tensor that holds an infinite entry or one that is not a number, if there is one."""
    for name, value in tensors.items():
        # One number of a sum tells of all, and needs no memory of the table's size.
        if value.is_floating_point() and not value.sum().isfinite():
            return name
    return None


def digest_tensors(tensors: dict[str, Tensor]) -> str:
    """Give the sha256 over names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].cpu().numpy().data)
    return digest.hexdigest()
