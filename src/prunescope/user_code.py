"""Run Python code that the user wrote: import a function from a file, and call it to build a network."""

from __future__ import annotations

import hashlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from prunescope.errors import InputError, nearest
from prunescope.files import read_file

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def import_function(path: Path, function: str) -> Callable[..., Any]:
    """Run a Python file and return one of its functions.

    Parameters
    ----------
    path
        The file. It is imported under a unique module name, so that it cannot shadow another module. It can import
        other modules from its folder.
    function
        The name of the function.

    Returns
    -------
    callable
        The function.

    Raises
    ------
    InputError
        If the file or the function does not exist, or if running the file fails. In the last case, the message names
        the error and its line.
    """
    try:
        source = read_file(path)
    except OSError as error:
        raise InputError(f"the network's file {path} cannot be read: {error.strerror}") from error
    name = f"_network_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    module = ModuleType(name)
    module.__file__ = str(path)
    # Dataclasses and pickle look up the module of a class by its name.
    sys.modules[name] = module
    with _errors_named(path, f"running {path}"):
        exec(compile(source, str(path), "exec"), module.__dict__)
    functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    found = getattr(module, function, None)
    if not callable(found):
        what = "does not name a function" if not function else f"has no function {function!r}"
        raise InputError(f"{path} {what}; {nearest(function, functions)}; expected path/to/file.py:function")
    called: Callable[..., Any] = found
    return called


def call_function(path: Path, function: Callable[..., Any], classes: int | None) -> nn.Module:
    """Call a function that builds a network.

    Parameters
    ----------
    path
        The file of the function, for messages.
    function
        The function. It is called with `classes=...` if it has that parameter and `classes` is not None, and otherwise
        without arguments.
    classes
        The number of outputs, or None for the function's default.

    Returns
    -------
    nn.Module
        The network that the function returned.

    Raises
    ------
    InputError
        If the function requires other arguments, raises an exception, or does not return an `nn.Module`.
    """
    name = f"{path}:{getattr(function, '__name__', 'function')}"
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError as error:
        raise InputError(f"{name} is built into Python; expected a function that returns a torch.nn.Module") from error
    takes_classes = any(p.kind is p.VAR_KEYWORD or (p.name == "classes" and p.kind in _BY_NAME) for p in parameters)
    arguments = {"classes": classes} if classes is not None and takes_classes else {}
    needed = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and parameter.name not in arguments
    ]
    if needed == ["classes"]:
        raise InputError(f"{name} needs the number of classes: give this number, or a default value of the parameter")
    if needed:
        raise InputError(
            f"{name} needs {', '.join(needed)}; it is called without arguments, or with classes=... if it has that "
            "parameter; give the other parameters default values"
        )
    with _errors_named(path, name):
        model = function(**arguments)
    if not isinstance(model, nn.Module):
        raise InputError(f"{name} returned a {type(model).__name__}; expected a torch.nn.Module")
    return model


@contextmanager
def _errors_named(path: Path, what: str) -> Iterator[None]:
    """Turn exceptions of the user's code into an `InputError` with their line, and allow imports from its folder."""
    folder = str(path.resolve().parent)
    sys.path.append(folder)
    try:
        yield
    except InputError:
        raise
    except SyntaxError as error:
        raise InputError(f"{what} failed at line {error.lineno}: {type(error).__name__}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f" at line {lines[-1]}" if lines else ""
        raise InputError(f"{what} failed{where}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
