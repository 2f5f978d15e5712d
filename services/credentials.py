"""
Which passwords and keys do the services use?

Made at first start and kept in one file outside the repository, mode 0600, as ``NAME=value`` lines that a
shell can source. The names are those of ``.env`` in a deployment with containers.
"""

import base64
import re
import secrets
import shlex
from pathlib import Path

from services.state import ServicesError, State, write_private

# Of a variable given at `make up`, these keep their value in the secrets file.
IS_SECRET = re.compile(r"PASSWORD|SECRET|FERNET|TOKEN|_KEY|CREDENTIAL|HEADERS|_URL|_URI|_CONN|AUTH")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Begins the names of given variables in the secrets file.
KEPT = "KEPT_"


def new_credentials() -> dict[str, str]:
    """Draw every password and key afresh; letters, digits, ``-``, ``_`` and ``=`` only."""
    return {
        "POSTGRES_PASSWORD": secrets.token_hex(16),
        "AIRFLOW_DB_PASSWORD": secrets.token_hex(16),
        "MLFLOW_DB_PASSWORD": secrets.token_hex(16),
        "REDIS_PASSWORD": secrets.token_hex(16),
        "AIRFLOW_ADMIN_USERNAME": "admin",
        "AIRFLOW_ADMIN_PASSWORD": secrets.token_hex(10),
        "AIRFLOW_ADMIN_EMAIL": "admin@localhost",
        "AIRFLOW_FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW_API_SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW_JWT_SECRET": secrets.token_hex(32),
        "MLFLOW_ADMIN_USERNAME": "admin",
        "MLFLOW_ADMIN_PASSWORD": secrets.token_hex(10),
        "MLFLOW_SECRET_KEY": secrets.token_hex(32),
        "MLFLOW_WEBHOOK_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "PUBLISH_HOOK_SECRET": secrets.token_hex(32),
    }


def ensure_credentials(state: State, given: dict[str, str]) -> dict[str, str]:
    """
    Give the credentials of a state folder: make what is missing, and keep what is ``given``, in place of what
    was given before.

    Raises:
        ServicesError: the file cannot be read or written, or it is gone while the databases know its content.
    """
    kept = known_credentials(state)
    return write_credentials(state, {**new_credentials(), **_without_given(kept), **given})


def known_credentials(state: State) -> dict[str, str]:
    """
    Give the credentials of the last start, none before the first.

    Raises:
        ServicesError: as ``ensure_credentials``.
    """
    path = state.secrets_file
    if path.exists():
        return read_credentials(path)
    earlier = _earlier_secrets(state)
    if earlier not in (None, str(path)):
        raise ServicesError(
            f"the passwords of {state.var} were in {earlier}, not in {path}: put that file there"
            f" (mode 0600), or remove {state.folder} to begin anew without its runs and releases"
        )
    if earlier or (state.folder / "postgres" / "PG_VERSION").exists():
        raise ServicesError(lost_secrets(state))
    return {}


def write_credentials(state: State, wanted: dict[str, str]) -> dict[str, str]:
    """
    Write the secrets file, if it holds anything else; give what it holds then.

    Raises:
        ServicesError: it cannot be written.
    """
    path = state.secrets_file
    try:
        if not path.exists() or read_credentials(path) != wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.parent.chmod(0o700)
            write_private(path, "".join(f"{name}={shlex.quote(value)}\n" for name, value in wanted.items()))
        path.chmod(0o600)
    except OSError as error:
        raise ServicesError(f"cannot write the passwords to {path}: {error}") from error
    return wanted


def lost_secrets(state: State) -> str:
    """Tell that the secrets file is gone, and what to do."""
    return (
        f"the passwords of {state.var} are not in {state.secrets_file} any more: put that file back (mode"
        f" 0600), or make down and remove {state.folder} to begin anew without its runs and releases"
    )


def forget_given(state: State, before: dict[str, str]) -> None:
    """Put back what was given before a start that failed; what it drew stays, a database may know it."""
    if state.secrets_file.exists():
        now = read_credentials(state.secrets_file)
        given = {name: value for name, value in before.items() if name not in _without_given(before)}
        write_credentials(state, {**_without_given(now), **given})


def _without_given(credentials: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in credentials.items() if not k.startswith(KEPT) and k != "REDIS_URL"}


def read_credentials(path: Path) -> dict[str, str]:
    """
    Read a file of ``NAME=value`` lines, quoted as for a shell.

    Raises:
        ServicesError: it cannot be read, or a line has another form; the line is not shown.
    """
    found = {}
    try:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, equals, quoted = line.partition("=")
            words = shlex.split(quoted)
            if not (equals and NAME.fullmatch(name) and len(words) <= 1):
                raise ValueError(f"line {number} is not NAME=value")
            found[name] = words[0] if words else ""
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ServicesError(f"cannot read the passwords in {path}: {error}") from error
    return found


def is_secret(name: str) -> bool:
    """Tell whether a variable's value is to be kept secret, by its name."""
    return bool(IS_SECRET.search(name.upper()))


def _earlier_secrets(state: State) -> str | None:
    """Name the secrets file with which this state folder was started before; None for a new one."""
    if not state.environment_file.exists():
        return None
    found = re.search(r"^\. (.*)$", state.environment_file.read_text(), re.MULTILINE)
    return shlex.split(found[1])[0] if found else None
