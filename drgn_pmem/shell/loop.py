# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The shell: a prompt, and the session that runs what is typed."""

from collections.abc import Callable, Iterator
from pathlib import Path
import sys

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.application.current import get_app
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.output import ColorDepth

from drgn_pmem.session import Target
from drgn_pmem.shell.candidates import Candidates
from drgn_pmem.shell.completion import ShellCompleter
from drgn_pmem.shell.config import Config, load_config
from drgn_pmem.shell.failures import Leave
from drgn_pmem.shell.history import open_history
from drgn_pmem.shell.idle import Idle, Step
from drgn_pmem.shell.keys import Toggles, key_bindings
from drgn_pmem.shell.lexer import STYLE, ShellLexer
from drgn_pmem.shell.log import colours, logger
from drgn_pmem.shell.output import Output
from drgn_pmem.shell.pager import find_pager
from drgn_pmem.shell.session import Session
from drgn_pmem.shell.summary import Summary
from drgn_pmem.shell.toolbar import toolbar

__all__ = ("Shell", "interact")

_MODULES = (
    "numpy",
    "drgn_pmem.analysis.memmap.sources",
    "drgn_pmem.analysis.memmap.intact",
    "drgn_pmem.analysis.findings.diagnose",
    "drgn_pmem.kernel.paths",
    "drgn_pmem.kernel.rmap",
)
"""What the work while nothing is typed needs."""


def interact(target: Target, use_config: bool = True) -> int:
    """
    Run the shell until the user leaves.

    :param use_config: Read the user's config file, and make it if there is none.
    :return: Exit status.
    """
    config = load_config() if use_config else Config()
    for warning in config.warnings:
        logger.warning("%s", warning)
    return Shell(target, config).run()


class Shell:
    """
    A prompt and what belongs to it.

    :param target: The dump or kernel.
    :param config: The user's settings.
    """

    def __init__(self, target: Target, config: Config) -> None:
        self.config = config
        self.session = Session(target, Output(True, find_pager(config.pager)))
        self.session.timing = config.timing
        self.summary = Summary(target)
        self.candidates = Candidates(target.prog)
        self.session.listeners.append(self.candidates.learn)
        self.idle = Idle(_MODULES)
        # The candidates that are needed first are read quickly.
        self.idle.add([*self.candidates.steps(), *self.summary.steps()])
        self.idle.add([Step("names", self._names), Step("findings", self._findings)])
        self.session.symbols_listeners.append(self._learn_anew)
        self.toggles = Toggles(config.complete_while_typing)
        self.prompt = self._make_prompt()

    def _make_prompt(self) -> "PromptSession[str]":
        config = self.config
        coloured = config.colours and colours(sys.stdout)
        return PromptSession(
            message=[("class:prompt", config.prompt), ("", " ")],
            multiline=True,  # what Enter does is in keys.py
            prompt_continuation=self._continuation,
            editing_mode=EditingMode.VI if config.keys == "vi" else EditingMode.EMACS,
            completer=ShellCompleter(self.session, self.candidates),
            # drgn must be used from one thread only.
            complete_in_thread=False,
            complete_while_typing=Condition(lambda: self.toggles.complete_while_typing),
            auto_suggest=AutoSuggestFromHistory() if config.suggest else None,
            history=open_history(),
            search_ignore_case=True,
            enable_open_in_editor=True,
            enable_suspend=True,
            key_bindings=key_bindings(self.session, self.toggles, self._everything),
            lexer=ShellLexer(self.session.names),
            style=STYLE,
            include_default_pygments_style=False,
            color_depth=None if coloured else ColorDepth.DEPTH_1_BIT,
            bottom_toolbar=self._toolbar if config.toolbar else None,
            reserve_space_for_menu=6,
        )

    def _learn_anew(self) -> None:
        """More debug info was loaded: read what was unknown before."""
        self.summary = Summary(self.session.target)
        self.idle.add([*self.summary.steps(), *self.candidates.steps()])
        self.idle.add([Step("findings", self._findings)])

    def _names(self) -> Iterator[None]:
        self.session.python.add_all()
        yield

    def _findings(self) -> Iterator[None]:
        """Find out what is wrong, and show the worst above the prompt."""
        yield from self.summary.diagnose()
        lines = self.summary.worst(get_app().output.get_size().columns)
        if lines and self.config.banner and get_app().is_running:
            run_in_terminal(lambda: print("\n".join(lines)))
        yield

    def _toolbar(self) -> StyleAndTextTuples:
        return toolbar(self.session, self.summary)

    def _everything(self) -> list[str]:
        return self.summary.everything()

    def _continuation(self, width: int, number: int, wrapped: int) -> StyleAndTextTuples:
        # A line that wraps at the end of the terminal is not a new line.
        return [("class:prompt", ("" if wrapped else "...").ljust(width))]

    def run(self) -> int:
        """Read and run lines until the user leaves. :return: Exit status."""
        with self.session.interrupts.installed():
            try:
                self._begin()
                return self._loop(self._read)
            finally:
                self.session.output.stop_journal()

    def _begin(self) -> None:
        if self.config.banner:
            from drgn_pmem.output.terminal import paragraph

            for line in self.summary.banner():
                print(paragraph(line))
            print("help lists the commands, help tour shows them in use.")
        sys.stdout.flush()
        if self.config.log:
            path = Path(self.config.log).expanduser()
            self.session.run(f"\\log {path}")
        for line in self.config.start_lines:
            self.session.run(line)

    def _read(self) -> str:
        return self.prompt.prompt(pre_run=lambda: self.idle.attach(get_app()))

    def _loop(self, read: Callable[[], str]) -> int:
        while True:
            try:
                text = read()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return 0
            try:
                self.session.run(text)
            except Leave as leave:
                return int(leave.args[0])
