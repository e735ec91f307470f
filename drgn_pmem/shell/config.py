# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The config file: created with comments on first use, read at every start."""

import configparser
from dataclasses import dataclass, field, fields
from pathlib import Path

from drgn_pmem.output.files import write_file
from drgn_pmem.output.text import escape
from drgn_pmem.shell.folders import config_directory

__all__ = ("Config", "load_config")

_TEXT = """\
# drgn-pmem's settings. Each is shown with its default; remove the # to change one.
# drgn-pmem --no-config ignores this file.

[shell]

# Keys: emacs or vi. F2 changes it in the shell.
#keys = emacs

# The menu of completions appears while typing (else on Tab). F3 changes it in the shell.
#complete_while_typing = yes

# Suggest the end of the line from the history, in grey.
#suggest = yes

# Pager for answers taller than the screen: a command line, auto ($PAGER, less, more) or never.
#pager = auto

# The line at the bottom with the dump, its kernel and warnings.
#toolbar = yes

# Show a summary of the dump before the first prompt.
#banner = yes

# Show how long each input took, as \\timing does.
#timing = no

# The prompt.
#prompt = >>>

# Colours of the input. NO_COLOR and dumb terminals turn them off, too.
#colours = yes

# Log every session to this file in Markdown, as \\log does.
#log =

# Lines run at every start, one after the other, indented below this one.
#start =
#    import collections
"""

_BOOLEANS = configparser.RawConfigParser.BOOLEAN_STATES


@dataclass
class Config:
    """Settings of the shell."""

    keys: str = "emacs"
    complete_while_typing: bool = True
    suggest: bool = True
    pager: str = "auto"
    toolbar: bool = True
    banner: bool = True
    timing: bool = False
    prompt: str = ">>>"
    colours: bool = True
    log: str = ""
    start: str = ""
    warnings: list[str] = field(default_factory=list)
    """What was wrong in the file, one line each."""

    @property
    def start_lines(self) -> list[str]:
        """Lines to run before the first prompt."""
        return [line for line in self.start.splitlines() if line.strip()]


def load_config(path: Path | None = None) -> Config:
    """
    Read the config file; make it if there is none. Errors in it never keep the shell from
    starting: they are in :attr:`Config.warnings`, and the default is used.
    """
    path = path or config_directory() / "config"
    config = Config()
    if not path.exists():
        _make(path, config)
        return config
    # Values are taken as they are: a prompt may contain a percent sign.
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        config.warnings.append(f"{path}: {' '.join(str(error).split())}")
        return config
    known = {f.name: f.type for f in fields(Config) if f.name != "warnings"}
    for section in parser.sections():
        for name, value in parser.items(section):
            where = f"{path}: [{escape(section)}] {escape(name)}"
            if section != "shell" or name not in known:
                config.warnings.append(f"{where}: no such setting")
            elif isinstance(getattr(config, name), bool):
                if value.lower() not in _BOOLEANS:
                    config.warnings.append(f"{where} is yes or no, not {escape(value)!r}")
                else:
                    setattr(config, name, _BOOLEANS[value.lower()])
            elif name == "keys" and value.lower() not in ("emacs", "vi"):
                config.warnings.append(f"{where} is emacs or vi, not {escape(value)!r}")
            else:
                setattr(config, name, value.lower() if name == "keys" else value)
    return config


def _make(path: Path, config: Config) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two shells may start for the first time at once: a reader never sees half a file.
        write_file(path, _TEXT, mode=0o600)
    except OSError as error:
        config.warnings.append(f"{path} cannot be made: {error.strerror}")
