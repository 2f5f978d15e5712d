"""What may be shown? Text without the passwords that addresses carry."""

import re
from collections.abc import Mapping
from typing import Any

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s'\"]*@")


def without_passwords(value: Any) -> Any:
    """Blank ``user:password@`` of every address in text, mappings and sequences; other values stay."""
    if isinstance(value, str):
        return _CREDENTIALS.sub("***@", value)
    if isinstance(value, Mapping):
        return {without_passwords(name): without_passwords(of) for name, of in value.items()}
    if isinstance(value, list | tuple):
        return [without_passwords(of) for of in value]
    return value
