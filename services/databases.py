"""Where are the databases: a PostgreSQL and a Redis that run already, or our own; and are ours made?"""

import configparser
import os
import pwd
import secrets
import shutil
import subprocess
from contextlib import closing
from glob import glob
from urllib.parse import unquote, urlsplit

import psycopg2
from psycopg2 import errors, sql
from psycopg2.extensions import encrypt_password

from nearline.store import StoreUnavailable, UnknownStore, open_store
from services.environment import Database
from services.ports import HOST
from services.state import ServicesError, State
from tasks.services_config import ServicesConfig
from tasks.settings import REPOSITORY

DEBIAN_BINARIES = "/usr/lib/postgresql/*/bin"
TIMEOUT_SECONDS = 5
UNPRIVILEGED_USERS = ("postgres", "nobody")
PACKAGES = {"redis-server": "redis", "initdb": "postgresql", "postgres": "postgresql"}


def find_binary(name: str, setting: str) -> str:
    """
    Find a server's program on the PATH, or where Debian puts those of PostgreSQL, the newest first.

    Raises:
        ServicesError: it is not installed; names the setting that does without it.
    """
    newest = sorted(glob(DEBIAN_BINARIES), key=lambda path: int("0" + path.split("/")[-2]), reverse=True)
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *newest])
    if found := shutil.which(name, path=path):
        return os.path.abspath(found)
    raise ServicesError(
        f"there is no program {name}: install {PACKAGES[name]}, or set"
        f" TRIBUTARY_SERVICES__{setting.upper()} to a server that runs already"
    )


def choose_postgres_user(state: State) -> str:
    """
    Name the user that our PostgreSQL runs as: empty for ourselves; it refuses to be root.

    Raises:
        ServicesError: we are root, and no unprivileged user can enter the state folder.
    """
    if os.getuid() != 0:
        return ""
    users = [user for user in UNPRIVILEGED_USERS if _exists(user)]
    for user in users:
        if _run_as(user, ["test", "-x", str(state.folder)]).returncode == 0:
            return user
    raise ServicesError(
        f"PostgreSQL does not run as root, and {' or '.join(users) or 'an unprivileged user'} cannot enter"
        f" {state.folder}: run as an ordinary user, choose a VAR that all may pass through, or set"
        " TRIBUTARY_SERVICES__POSTGRES_URL"
    )


def ensure_cluster(initdb: str, state: State, user: str, password: str) -> bool:
    """
    Make our PostgreSQL's data folder if it is not there; passwords by SCRAM, no other way in.

    Gives whether it was made now.

    Raises:
        ServicesError: initdb failed, with its reason.
    """
    data = state.folder / "postgres"
    if (data / "PG_VERSION").exists():
        return False
    new = state.folder / f"postgres-{secrets.token_hex(4)}"
    password_file = new.with_suffix(".pw")
    try:
        new.mkdir(mode=0o700)
        password_file.touch(mode=0o600)
        password_file.write_text(password)
        if user:
            for path in (new, password_file):
                shutil.chown(path, user, pwd.getpwnam(user).pw_gid)
        login = ["--username=postgres", "--auth=scram-sha-256", f"--pwfile={password_file}"]
        made = _run_as(user, [initdb, f"--pgdata={new}", "--encoding=UTF8", "--locale=C", *login])
        if made.returncode:
            reason = (made.stderr.strip() or made.stdout.strip()).splitlines()
            raise ServicesError(f"initdb cannot make {data}: {reason[-1] if reason else made.returncode}")
        new.rename(data)
    except OSError as error:
        raise ServicesError(f"cannot make {data}: {error}") from error
    finally:
        password_file.unlink(missing_ok=True)
        shutil.rmtree(new, ignore_errors=True)
    return True


def database_names(state: State, *, is_shared: bool) -> tuple[str, str]:
    """Name Airflow's and MLflow's database: plainly on our own server, by state folder on a shared one."""
    prefix = f"{state.database_prefix}_" if is_shared else ""
    return f"{prefix}airflow", f"{prefix}mlflow"


def own_postgres_url(port: int) -> str:
    """Give the address of our own PostgreSQL for its administrator; the password is given apart."""
    return f"postgresql://postgres@{HOST}:{port}/postgres"


def connect(url: str, password: str | None = None) -> psycopg2.extensions.connection:
    """
    Connect to a PostgreSQL as the user of a URL.

    Raises:
        ServicesError: it does not answer or does not let us in; the URL is named without its password.
    """
    parts = urlsplit(url)
    place = f"{parts.hostname}:{parts.port or 5432}"
    try:
        opened = psycopg2.connect(
            host=parts.hostname,
            port=parts.port or 5432,
            user=unquote(parts.username or "") or None,
            password=password or unquote(parts.password or "") or None,
            dbname=unquote(parts.path.lstrip("/")) or "postgres",
            connect_timeout=TIMEOUT_SECONDS,
        )
    except psycopg2.Error as error:
        raise ServicesError(
            f"cannot connect to PostgreSQL at {place}: {' '.join(str(error).split())}"
        ) from error
    opened.autocommit = True
    return opened


def refuse_away(config: ServicesConfig) -> None:
    """
    Refuse servers of the settings that do not answer, before anything is started or written.

    Raises:
        ServicesError: one is away or does not let us in; names the setting and the address, no password.
    """
    if config.postgres_url:
        try:
            connect(config.postgres_url).close()
        except ServicesError as error:
            raise ServicesError(f"services.postgres_url: {error}") from error
    if config.redis_url:
        try:
            with closing(open_store(config.redis_url)) as store:
                store.serving()
        except (StoreUnavailable, UnknownStore) as error:
            parts = urlsplit(config.redis_url)
            raise ServicesError(
                f"services.redis_url: cannot connect to Redis at {parts.hostname}:{parts.port or 6379}:"
                f" {' '.join(str(error.__cause__ or error).split())}"
            ) from error


def ensure_databases(url: str, databases: list[Database], passwords: list[str], *, admin: str | None) -> None:
    """
    Make each database and the role that owns it, and set the role's password; ``admin`` is the URL's.

    The server gets the password's SCRAM hash, so that no statement in its log has the password.

    Raises:
        ServicesError: the URL's user may not, or the server is away.
    """
    with closing(connect(url, admin)) as opened, opened.cursor() as cursor:
        try:
            for database, password in zip(databases, passwords, strict=True):
                _ensure_database(
                    cursor, database.name, encrypt_password(password, database.name, opened, "scram-sha-256")
                )
        except errors.InsufficientPrivilege as error:
            user = urlsplit(url).username
            raise ServicesError(
                f"the user {user!r} of services.postgres_url may not make roles and databases: give it"
                f" CREATEROLE and CREATEDB ({str(error).strip().splitlines()[0]})"
            ) from error
        except psycopg2.Error as error:
            raise ServicesError(
                f"PostgreSQL refused to make the databases: {str(error).strip().splitlines()[0]}"
            ) from error


def _ensure_database(cursor, name: str, password_hash: str) -> None:
    role = sql.Identifier(name)
    cursor.execute("select 1 from pg_roles where rolname = %s", (name,))
    if not cursor.fetchone():
        cursor.execute(sql.SQL("create role {} login").format(role))
    cursor.execute(sql.SQL("alter role {} login password {}").format(role, sql.Literal(password_hash)))
    cursor.execute("select 1 from pg_database where datname = %s", (name,))
    if not cursor.fetchone():
        cursor.execute("select rolsuper from pg_roles where rolname = current_user")
        if not cursor.fetchone()[0]:
            cursor.execute(sql.SQL("grant {} to current_user").format(role))
        cursor.execute(sql.SQL("create database {} owner {}").format(role, role))
    cursor.execute(sql.SQL("revoke all on database {} from public").format(role))


def has_airflow_user(database: Database, password: str, username: str) -> bool:
    """Tell whether Airflow's database holds a user of that name already."""
    url = f"postgresql://{database.name}@{database.host}:{database.port}/{database.name}"
    with closing(connect(url, password)) as opened, opened.cursor() as cursor:
        cursor.execute("select to_regclass('ab_user')")
        if cursor.fetchone()[0] is None:
            return False
        cursor.execute("select 1 from ab_user where username = %s", (username,))
        return cursor.fetchone() is not None


def mlflow_auth_file(database: Database) -> str:
    """Give the repository's rules of MLflow's users, with the database of this state folder."""
    rules = configparser.ConfigParser()
    rules.read(REPOSITORY / "mlflow" / "basic_auth.ini")
    rules["mlflow"]["database_uri"] = f"postgresql+psycopg2:///{database.name}"
    return "[mlflow]\n" + "".join(f"{name} = {value}\n" for name, value in rules["mlflow"].items())


def _exists(user: str) -> bool:
    try:
        return bool(pwd.getpwnam(user))
    except KeyError:
        return False


def _run_as(user: str, command: list[str]) -> subprocess.CompletedProcess:
    """Run a command as another user, or as ourselves for an empty name."""
    identity = {}
    if user:
        entry = pwd.getpwnam(user)
        identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    return subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, **identity)
