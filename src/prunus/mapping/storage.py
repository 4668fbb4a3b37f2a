"""Where trials of a search are kept: a database or journal that Optuna can use, by its URL.

sqlite:///trials.db, postgresql://user@host/name and what else SQLAlchemy knows; redis://host:6379; or journal:///path,
a plain file that several processes may share over a network.
"""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna
import sqlalchemy.exc
from optuna.storages.journal import JournalFileBackend, JournalRedisBackend, JournalStorage

from prunus.errors import StorageError

JOURNAL = "journal:///"
LOCKED_S = 60  # how long to wait for another process that writes
TRIES, WAIT_S = 10, 0.2  # to open a database whose tables are just being made


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """The storage of a URL; a file or tables are made where there are none.

    Raises StorageError: it can't be reached, a driver is missing, or the URL is none.
    """
    with reaching(url), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        _check(url)
        if url.startswith(JOURNAL):
            return JournalStorage(JournalFileBackend(_journal(url)))
        if url.startswith(("redis://", "rediss://")):
            return JournalStorage(JournalRedisBackend(url, prefix="prunus"))
        return _database(url)


class _NoUrl(Exception):
    """A text that can't be taken apart."""


def _check(url: str) -> None:
    try:
        _ = urlsplit(url).port
    except ValueError as error:  # which comes back as such from SQLAlchemy and redis
        raise _NoUrl from error


def _database(url: str) -> optuna.storages.BaseStorage:
    here = url.startswith("sqlite")
    # a server may have closed a connection that waited for a training
    how: dict[str, Any] = {"connect_args": {"timeout": LOCKED_S}} if here else {"pool_pre_ping": True}
    for _ in range(TRIES):
        try:
            return optuna.storages.RDBStorage(url, how)
        except sqlalchemy.exc.DBAPIError as error:  # another process makes the same tables
            if not any(words in str(error.orig) for words in ("already exists", "duplicate", "UNIQUE")):
                raise
            time.sleep(WAIT_S)
    return optuna.storages.RDBStorage(url, how)


@contextmanager
def reaching(url: str, kept: str = "") -> Iterator[None]:
    """Turns what a storage may fail with into one line, without the password. kept: what isn't lost by that.

    Raises StorageError: it failed.
    """
    try:
        yield
    except StorageError:
        raise
    except sqlalchemy.exc.NoSuchModuleError as error:
        raise StorageError(_said(url, "no such kind of database", kept)) from error
    except (sqlalchemy.exc.ArgumentError, _NoUrl) as error:
        raise StorageError(
            _said(url, "expected a URL as sqlite:///trials.db or postgresql://host/name", kept)
        ) from error
    except ImportError as error:
        cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        package = getattr(cause, "name", None) or "its driver"
        if url.startswith("redis"):
            package = "redis"
        raise StorageError(_said(url, f"needs the package {package}, which is not installed", kept)) from error
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
        raise StorageError(_said(url, _reason(error), kept)) from error
    except Exception as error:
        # of redis, whose errors have no base that can be imported where it isn't installed
        if type(error).__module__.partition(".")[0] != "redis":
            raise
        raise StorageError(_said(url, _reason(error), kept)) from error


def _journal(url: str) -> str:
    """The path of a journal's URL: as with sqlite, a fourth stroke makes it start at the root."""
    path = Path(url.removeprefix(JOURNAL))
    if not path.name or path.is_dir():
        raise StorageError(f"storage {url}: expected a file, as journal:///trials.log")
    if not path.parent.is_dir():
        raise StorageError(f"storage {url}: no folder {path.parent}")
    return str(path)


def _said(url: str, reason: str, kept: str) -> str:
    return f"storage {hidden(url)}: {reason}" + (f"; {kept}" if kept else "")


def hidden(url: str) -> str:
    """The URL without the password that may be in it."""
    try:
        password = urlsplit(url).password
    except ValueError:
        return url.partition("://")[0]
    return url.replace(f":{password}@", ":***@") if password else url


def _reason(error: BaseException) -> str:
    """The first line of the innermost error: the outer ones only say that something failed."""
    at: Any = error
    while True:
        inner = getattr(at, "orig", None) or at.__cause__
        if inner is None:
            break
        at = inner
    return (str(at).strip().splitlines() or [type(at).__name__])[0]
