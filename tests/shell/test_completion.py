# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Completion offers what fits, with a description, and never runs or reads much."""

import json
import threading

from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
import pytest

from drgn_pmem.commands import load_commands
from drgn_pmem.shell.candidates import Candidates
from drgn_pmem.shell.completion import ShellCompleter
from drgn_pmem.shell.idle import Idle, Step
from drgn_pmem.shell.session import Session
from drgn_pmem.spec import SPECS, Answer

load_commands()  # tests are made for each of them


@pytest.fixture(scope="module")
def candidates(target) -> Candidates:
    known = Candidates(target.prog)
    idle = Idle()
    idle.add(known.steps())
    idle.run_all()
    return known


@pytest.fixture
def complete(session: Session, candidates: Candidates):
    completer = ShellCompleter(session, candidates)

    def run(text: str) -> dict[str, str]:
        """What the line would be with each offer, and the offer's description."""
        found = completer.get_completions(Document(text), CompleteEvent(completion_requested=True))
        return {
            text[: len(text) + offer.start_position] + offer.text: offer.display_meta_text
            for offer in found
        }

    return run


def test_commands_by_prefix_and_by_their_own_words(complete) -> None:
    assert complete("pmem-na")["pmem-namespaces"] == SPECS["pmem-namespaces"].description
    assert "%pmem-namespaces" in complete("%pmem-na")
    assert "pmem-namespaces" in complete("names")
    assert "%crash" in complete("%cr")
    assert "\\timing" in complete("\\t")
    assert "help" in complete("he")


def test_every_command_is_offered_and_described(complete) -> None:
    offers = complete("%")
    for name, spec in SPECS.items():
        assert offers[f"%{name}"] == spec.description != ""


def test_options_with_their_help(complete) -> None:
    offers = complete("pmem-list --n")
    assert offers["pmem-list --namespaces"]
    assert "pmem-list --no-header" in offers
    assert "pmem-list --json" not in offers
    # One that was given is not offered again, but one that counts is.
    assert "pmem-list --json --json" not in complete("pmem-list --json --j")
    assert "pmem-list -v --verbose" in complete("pmem-list -v --v")


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_option_of_every_command_is_offered(complete, name: str) -> None:
    offers = complete(f"{name} -")
    for argument in SPECS[name].all_arguments():
        if argument.is_option:
            longest = max(argument.names, key=len)
            assert offers[f"{name} {longest}"] == argument.help


def test_namespaces_regions_and_devices_are_the_machines(complete, sample) -> None:
    truth = json.loads((sample.truth / "ndctl.json").read_text())
    regions = [region for bus in truth for region in bus["regions"]]
    namespaces = [n for region in regions for n in region.get("namespaces", ())]
    names = {n["dev"] for n in namespaces if n.get("state") != "disabled"}
    assert set(complete("pmem-namespaces ")) == {f"pmem-namespaces {name}" for name in names}
    offered = set(complete("pmem-list --region "))
    assert offered == {f"pmem-list --region {region['dev']}" for region in regions}
    dimms = {dimm["dev"] for bus in truth for dimm in bus["dimms"]}
    assert set(complete("pmem-list -d ")) == {f"pmem-list -d {dimm}" for dimm in dimms}
    # Each with a description that tells one from the other.
    modes = {n["dev"]: n["mode"] for n in namespaces}
    for line, description in complete("pmem-namespaces ").items():
        assert modes[line.split()[1]] in description


def test_files_are_the_dax_files_and_pages_can_be_named_by_them(complete, sample) -> None:
    offers = {line.split(" ", 1)[1] for line in complete("pmem-file ")}
    mapped = {
        line.split("path=")[1].split()[0]
        for path in sample.truth.glob("map.*.txt")
        for line in path.read_text().splitlines()
        if line.startswith("MAP ")
    }
    assert len(mapped) > 10
    # A file that was deleted has no path any more.
    assert {path for path in mapped if not path.endswith("/gone")} <= offers
    some = sorted(offers)[0]
    assert f"pmem-rmap {some}:" in complete(f"pmem-rmap {some[:-1]}")
    assert "pmem-rmap namespace1.0+" in complete("pmem-rmap namesp")


def test_choices_and_fields(complete) -> None:
    assert "pmem-list --mode fsdax" in complete("pmem-list --mode fs")
    assert "pmem-list -o namespace,size" in complete("pmem-list -o namespace,si")
    assert "pmem-namespaces -o +uuid" in complete("pmem-namespaces -o +u")
    assert "pmem-list -s -size" in complete("pmem-list -s -si")
    assert "pmem-list -o size,size" not in complete("pmem-list -o size,si")
    assert all(complete("pmem-list -s "))


def test_fields_that_are_shown_are_not_offered_to_be_added(complete) -> None:
    offers = {line.rpartition("+")[2] for line in complete("pmem-namespaces -o +")}
    assert offers == {f.name.lower() for f in SPECS["pmem-namespaces"].fields if not f.shown}
    assert "pmem-namespaces -o mode" in complete("pmem-namespaces -o mo")


def test_help_by_a_question_mark_in_front(complete) -> None:
    assert "?pmem-namespaces" in complete("?pmem-na")


def test_poisoned_pages_are_offered_first_then_pinned_ones(target, session: Session) -> None:
    known = Candidates(target.prog)
    idle = Idle()
    known.learn("pmem-pages", Answer([type("Record", (), {"pfn": 0x1})()]))
    known.learn("pmem-pins", Answer([type("Record", (), {"pfn": 0x2})()]))
    idle.add(known.steps())
    idle.run_all()
    pages = list(known.get("page"))
    assert pages.index("0x1295f5") < pages.index("0x2") < pages.index("0x1")
    known.learn("pmem-rmap", Answer([type("Record", (), {"pfn": 0x1295F5})()]))
    assert known.get("page")["0x1295f5"].startswith("poisoned")
    completer = ShellCompleter(session, known)
    event = CompleteEvent(completion_requested=True)
    offers = [o.text for o in completer.get_completions(Document("pmem-rmap 0x"), event)]
    assert offers[: len(pages)] == pages


def test_pages_by_sector_and_by_forced_numbers(complete) -> None:
    assert "pmem-rmap pmem2:" in complete("pmem-rmap pmem")
    # The sectors of bad and pinned pages, where a sector is at a fixed place of the namespace.
    assert "pmem-rmap pmem2:45064" in complete("pmem-rmap pmem2:")
    assert not any(text.startswith("pmem-rmap pmem0s:") for text in complete("pmem-rmap pmem0s:"))
    assert "pmem-rmap pfn:" in complete("pmem-rmap pf")
    assert "pmem-rmap pfn:0x1295f5" in complete("pmem-rmap pfn:0x12")
    assert "pmem-rmap phys:" in complete("pmem-rmap ph")


def test_names_in_strings(complete) -> None:
    assert complete('prog["init_ta')['prog["init_task'] == "variable"
    assert complete("prog.function('pfn_va")["prog.function('pfn_valid"] == "function"
    assert "cast('struct task_struct" in complete("cast('struct task_s")
    assert 'x = Object(prog, "struct nd_region' in complete('x = Object(prog, "struct nd_re')
    assert len(complete('prog["_')) <= 1000
    for text in ("print('init_ta", 'prog["', "cast('in", "# prog['init_ta"):
        assert complete(text) == {}, text


def test_arguments_of_the_shells_own_commands(complete, session: Session, tmp_path) -> None:
    assert "help tour" in complete("help t")
    assert "help pmem-list" in complete("help pmem-l")
    session.favourites.save("mine", "pmem-list")
    assert complete("\\f m") == {"\\f mine": "pmem-list"}
    (tmp_path / "some.md").write_text("")
    assert f"\\log {tmp_path}/some.md" in complete(f"\\log {tmp_path}/so")
    assert f"pmem-list > {tmp_path}/some.md" in complete(f"pmem-list > {tmp_path}/so")


def test_python_names_attributes_and_members(complete) -> None:
    assert complete("pfn_to_pa")["pfn_to_page"]
    assert "prog.core_dump_path" in complete("prog.core_d")
    assert complete("prog['init_task'].m")["prog['init_task'].mm"] == "struct mm_struct *"
    assert complete('x = prog["init_task"].mm.pg')['x = prog["init_task"].mm.pgd']
    assert "print(prog.flags" in complete("print(prog.fla")
    assert "lambda" in complete("lamb")
    assert complete("'prog.fla") == {}
    assert complete("# prog.fla") == {}


def test_members_of_a_pointer_that_faults_are_offered(complete, session: Session) -> None:
    session.run("wild = Object(prog, 'struct task_struct *', 1)")
    assert "wild.mm" in complete("wild.m")
    assert complete("wild.mm.pg") == {} or "wild.mm.pgd" in complete("wild.mm.pg")


def test_completing_runs_no_code(complete, session: Session) -> None:
    session.run("ran = []\ndef run():\n    ran.append(1)\n    return prog\n")
    for text in (
        "run().fla",
        "ran.append(1).x",
        "[ran.append(1)].x",
        "(lambda: ran.append(1))().x",
    ):
        complete(text)
    assert session.python.names["ran"] == []


def test_nothing_is_offered_where_nothing_is_known(complete) -> None:
    for text in ("", "pmem-list | gr", "!l", "pmem-list --limit ", "x = ", "\\timing maybe "):
        assert complete(text) == {}, text


def test_answers_add_what_they_name(complete, session: Session, candidates: Candidates) -> None:
    records = [
        type("Record", (), {"pfn": 0xABCDE, "path": path})()
        for path in ("/new/a b", "/new/\x1b[31m")
    ]
    candidates.learn("pmem-poison", Answer(records))
    assert complete("pmem-rmap 0xabc") == {"pmem-rmap 0xabcde": "from pmem-poison"}
    # Quoted, so that it is one word; what cannot be typed or would change the screen is left out.
    assert complete("pmem-file /new/") == {"pmem-file '/new/a b'": "DAX file"}


def test_a_damaged_dump_only_makes_lists_shorter(target) -> None:
    idle = Idle()
    seen = []

    def broken():
        seen.append(1)
        yield
        raise ValueError("damaged")

    idle.add([Step("broken", broken), Step("fine", lambda: iter([seen.append(2)]))])
    idle.run_all()
    assert seen == [1, 2]
    assert idle.done


def test_candidates_are_taken_on_the_main_thread_in_small_steps(target) -> None:
    others = threading.active_count()  # of other tests
    known = Candidates(target.prog)
    idle = Idle()
    idle.add(known.steps())
    steps = 1
    while idle.step():
        steps += 1
    assert steps > 20
    assert threading.active_count() == others


def test_lists_have_an_end(target) -> None:
    known = Candidates(target.prog)
    for number in range(6000):
        known.add("page", hex(number + 1))
    assert len(known.get("page")) == 5000
