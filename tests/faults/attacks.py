"""Files that are made to run code: configurations, checkpoints and stores are data, and stay data."""

from __future__ import annotations

import io
import json
import pickle
import random
import signal
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from implicitly import studies
from implicitly.models import training
from implicitly.models.training.configuration import as_text
from implicitly.models.training.module import RECORD

from .campaign import Trial, fault
from .training import RUN

IN_WORDS = (
    studies.StudyError,
    studies.StoreError,
    training.ConfigurationError,
    training.CheckpointError,
)
_SECONDS = 20


def harmless(canary: Path, read: Callable[[], object], *, may_succeed: bool = False) -> str:
    """Empty if reading ends in time, in words, and runs nothing."""
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(_SECONDS)
    said = "" if may_succeed else "it is accepted"
    try:
        read()
    except IN_WORDS as error:
        said = "" if len(str(error)) < 10_000 else f"an error of {len(str(error))} characters"
    except Exception as error:  # Of any kind.
        said = f"{type(error).__name__}: {str(error)[:100]}"
    finally:
        signal.alarm(0)
    if canary.exists():
        canary.rmdir() if canary.is_dir() else canary.unlink()
        return "code has run"
    return said


def _too_long(*arguments: Any) -> None:
    raise TimeoutError("it takes too long")


# --- YAML ------------------------------------------------------------------------------------------


def tags(canary: Path) -> dict[str, str]:
    """YAML values that make a file if a loader runs them."""
    touch, text = f"touch {canary}", f"__import__('os').mkdir('{canary}')"
    return {
        "apply os.system": f"!!python/object/apply:os.system ['{touch}']",
        "apply os.mkdir": f"!!python/object/apply:os.mkdir ['{canary}']",
        "new os.system": f"!!python/object/new:os.system ['{touch}']",
        "apply subprocess": f"!!python/object/apply:subprocess.check_output [[touch, '{canary}']]",
        "apply eval": f'!!python/object/apply:eval ["{text}"]',
        "apply builtins.eval": f'!!python/object/apply:builtins.eval ["{text}"]',
        "apply exec": f'!!python/object/apply:exec ["{text}"]',
        "apply with keywords": f"!!python/object/apply:os.mkdir {{args: ['{canary}'], kwds: {{}}}}",
        "map of a name": "!!python/object/new:tuple [!!python/object/new:map "
        f'[!!python/name:eval "", ["{text}"]]]',
        "a name": "!!python/name:os.system ''",
        "a module": "!!python/module:os ''",
        "an object": "!!python/object:pathlib.Path {}",
        "a tuple": "!!python/tuple [1, 2]",
        "a tag in full": f"!<tag:yaml.org,2002:python/object/apply:os.system> ['{touch}']",
        "an own tag": "!steps 3",
        "a key": f"{{? !!python/object/apply:os.system ['{touch}'] : 1}}",
        "a merge": f"{{<<: !!python/object/apply:os.system ['{touch}']}}",
        "bytes": "!!binary gASVHgAAAA==",
    }


def bombs() -> dict[str, str]:
    """Short texts that stand for more than memory holds."""
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    maps = ["a0: &a0 {x: 1, y: 2}"]
    maps += [f"a{i}: &a{i} {{x: *a{i - 1}, y: *a{i - 1}}}" for i in range(1, 40)]
    return {
        "aliases of lists": "\n".join([*lines, "steps: *a11", "name: *a11"]),
        "aliases of mappings": "\n".join([*maps, "steps: *a39", "name: *a39"]),
        "a value within itself": "name: &a [*a]\nsteps: *a",
        "deep lists": "name: " + "[" * 3_000,
        "deep mappings": "name: " + "{a: " * 3_000,
        "a long integer": "name: " + "9" * 20_000,
        "a key twice": "name: a\nname: b",
        "a zero byte": "name: a\0b",
    }


def readers(folder: Path) -> dict[str, Callable[[str], object]]:
    """Readers of a YAML text."""

    def study(text: str) -> object:
        (folder / "study.yaml").write_text(text)
        return studies.load(folder / "study.yaml")

    def run(text: str) -> object:
        (folder / "run.yaml").write_text(text)
        return training.load(folder / "run.yaml")

    def plan(text: str) -> object:
        store = studies.Store(folder / "store")
        store.write_plan(studies.Plan("s", ("k",), text))
        return studies.resume("s", store)

    def checkpoint(text: str) -> object:
        torch.save(contents(text), folder / "step=1.ckpt")
        return training.restore(folder / "step=1.ckpt")

    return {"a study": study, "a run": run, "a plan": plan, "a checkpoint": checkpoint}


def contents(text: str | None = None) -> dict[str, Any]:
    """The content of a checkpoint with this configuration."""
    record = {"configuration": as_text(RUN) if text is None else text, "vocabulary": 10}
    return {"state_dict": {}, "global_step": 1, RECORD: {**record, "memory": []}}


@fault()
def tags_of_python_in_yaml(folder: Path, draw: random.Random) -> Iterator[Trial]:
    canary = folder / "ran"
    for reader, read in readers(folder).items():
        for said, tag in tags(canary).items():
            for text in (
                tag,
                f"name: {tag}\ntitle: {tag}",
                f"name: s\nproblems: [{tag}]\nmodel: {tag}",
            ):
                yield f"{said} in {reader}", harmless(canary, partial(read, text))
        directive = (
            f"%TAG !p! tag:yaml.org,2002:python/object/apply:\n---\n!p!os.mkdir ['{canary}']"
        )
        yield f"a directive in {reader}", harmless(canary, partial(read, directive))
    for said, tag in tags(canary).items():
        change = partial(training.load, "demo", [f"steps={tag}"])
        yield f"{said} in a change", harmless(canary, change)


@fault(short=False)
def texts_that_stand_for_too_much(folder: Path, draw: random.Random) -> Iterator[Trial]:
    canary = folder / "ran"
    for reader, read in readers(folder).items():
        for said, text in bombs().items():
            yield f"{said} in {reader}", harmless(canary, partial(read, text))


@fault()
def configurations_that_name_code(folder: Path, draw: random.Random) -> Iterator[Trial]:
    """Fields and selections that could be taken for Python."""
    canary = folder / "ran"
    code = f"__import__('os').mkdir('{canary}')"
    own = folder / "own_code.py"
    own.write_text(f"import os\nos.mkdir({str(canary)!r})\nconfiguration = {{}}\n")
    read = readers(folder)["a study"]
    study = "name: s\nproblems: [boggs]\nsolvers: [newton]\n"
    cases = {
        "a file of one's own": f"{study}own: {own}\n",
        "an option of a solver": f'name: s\nproblems: [boggs]\nsolvers: ["newton[refresh={code}]"]\n',
        "the name of a solver": f'name: s\nproblems: [boggs]\nsolvers: ["{code}"]\n',
        "the name of a problem": f'name: s\nproblems: ["{code}"]\nsolvers: [newton]\n',
        "the size of a problem": f'name: s\nproblems: ["bratu[n={code}]"]\nsolvers: [newton]\n',
        "the name of a library": 'name: s\nproblems: [boggs]\nsolvers: ["os:system"]\n',
        "a dtype": f'{study}dtypes: ["__class__"]\n',
        "the name of the study": 'name: "../../s"\nproblems: [boggs]\nsolvers: [newton]\n',
    }
    for said, text in cases.items():

        def expand(text: str = text) -> object:
            loaded: Any = read(text)
            return loaded[0].cells()

        yield said, harmless(canary, expand)
    for said, change in {
        "a solver": f"model.depth.solver={code}",
        "an optimiser": "optimiser={name: eval}",
        "a model": "model={name: __import__}",
        "a private field": "__class__=3",
        "a method": "model_for=3",
    }.items():
        yield f"{said} of a run", harmless(canary, partial(training.load, "demo", [change]))


# --- Checkpoints -----------------------------------------------------------------------------------


class Calls:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.called = (function, arguments)

    def __reduce__(self) -> Any:
        return self.called


def payloads(canary: Path) -> dict[str, Any]:
    import os
    import subprocess

    code = f"__import__('os').mkdir('{canary}')"
    return {
        "os.mkdir": Calls(os.mkdir, str(canary)),
        "os.system": Calls(os.system, f"touch {canary}"),
        "subprocess": Calls(subprocess.check_output, ["touch", str(canary)]),
        "eval": Calls(eval, code),
        "exec": Calls(exec, code),
        "a partial function": partial(Calls(os.mkdir, str(canary)).__reduce__),
        "a function inside a list": [Calls(os.mkdir, str(canary))],
        "open": Calls(open, str(canary), "w"),
        "a lambda's name": Calls(getattr, Calls(__import__, "os"), "system"),
    }


PLACES: dict[str, Callable[[Any], Any]] = {
    "the weights": lambda bad: {**contents(), "state_dict": bad},
    "a weight": lambda bad: {**contents(), "state_dict": {"model.a": bad}},
    "the record": lambda bad: {**contents(), RECORD: bad},
    "the configuration": lambda bad: {
        **contents(),
        RECORD: {**contents()[RECORD], "configuration": bad},
    },
    "the optimiser": lambda bad: {**contents(), "optimizer_states": [bad]},
    "the callbacks": lambda bad: {**contents(), "callbacks": {"a": bad}},
    "a key": lambda bad: {**contents(), "loops": OrderedDict(a=bad)},
}


@fault()
def code_in_checkpoints(folder: Path, draw: random.Random) -> Iterator[Trial]:
    canary, file = folder / "ran", folder / "bad.ckpt"
    read = partial(training.restore, file)
    for said, bad in payloads(canary).items():
        for place, put in PLACES.items():
            torch.save(put(bad), file)
            yield f"{said} in {place}", harmless(canary, read)
        for protocol in range(6):
            file.write_bytes(pickle.dumps(contents() | {"state_dict": bad}, protocol))
            yield f"{said} as a pickle of protocol {protocol}", harmless(canary, read)
        torch.save(contents() | {"callbacks": bad}, file, _use_new_zipfile_serialization=False)
        yield f"{said} in the old format", harmless(canary, read)


@fault()
def checkpoints_of_other_forms(folder: Path, draw: random.Random) -> Iterator[Trial]:
    canary, file = folder / "ran", folder / "bad.ckpt"
    read = partial(training.restore, file)
    bad = pickle.dumps(payloads(canary)["os.mkdir"])

    def script() -> None:
        torch.jit.script(torch.nn.ReLU()).save(str(file))

    def zipped() -> None:
        with zipfile.ZipFile(file, "w") as opened:
            opened.writestr("archive/data.pkl", bad)
            opened.writestr("archive/version", "3")
            opened.writestr("../../ran", "outside")

    def tarred() -> None:
        with tarfile.open(file, "w") as opened:
            for name in ("sys_info", "pickle", "storages", "tensors"):
                entry = tarfile.TarInfo(name)
                entry.size = len(bad)
                opened.addfile(entry, io.BytesIO(bad))

    with __import__("warnings").catch_warnings():
        __import__("warnings").simplefilter("ignore")
        for said, make in {"TorchScript": script, "a zip": zipped, "a tar": tarred}.items():
            make()
            yield said, harmless(canary, read)
    records: dict[str, dict[str, Any]] = {
        "no text": {"configuration": 3}, "no vocabulary": {"vocabulary": "many"},
        "a negative vocabulary": {"vocabulary": -1}, "other digests": {"digests": 3},
    }  # fmt: skip
    for said, change in records.items():
        torch.save({**contents(), RECORD: {**contents()[RECORD], **change}}, file)
        yield f"a record with {said}", harmless(canary, read, may_succeed=said == "other digests")
    others: dict[str, dict[str, Any]] = {
        "no step": {"global_step": "a"}, "weights that are a list": {"state_dict": [1]},
        "weights that are none": {"state_dict": {"model.a": 3}},
        "names that are none": {"state_dict": {3: torch.zeros(1)}},
    }  # fmt: skip
    for said, content in others.items():
        torch.save({**contents(), **content}, file)
        yield said, harmless(canary, read)
    torch.save(contents(), file)
    whole = file.read_bytes()
    for number in range(60):
        spoilt = bytearray(whole)
        for _ in range(draw.randrange(1, 20)):
            spoilt[draw.randrange(len(spoilt))] = draw.randrange(256)
        file.write_bytes(
            bytes(spoilt[: draw.randrange(len(spoilt))] if number % 3 == 0 else spoilt)
        )
        yield f"changed bytes {number}", harmless(canary, read, may_succeed=True)


@fault()
def a_run_that_goes_on_from_a_bad_checkpoint(folder: Path, draw: random.Random) -> Iterator[Trial]:
    canary, place = folder / "ran", folder / "run" / "checkpoints"
    place.mkdir(parents=True)
    for said, bad in payloads(canary).items():
        torch.save({**contents(), "callbacks": bad}, place / "step=1.ckpt")
        go_on = partial(
            training.train, replace(RUN, steps=2), place.parent, resume=True, accelerator="cpu"
        )
        yield said, harmless(canary, go_on)


@fault()
def stores_that_name_code(folder: Path, draw: random.Random) -> Iterator[Trial]:
    """To look at a store runs nothing; to resume a study of a Python file runs that file, as documented."""
    canary, own = folder / "ran", folder / "own_plan.py"
    own.write_text(f"import os\nos.mkdir({str(canary)!r})\n")
    store = studies.Store(folder / "store")
    plan = studies.Plan("s", ("k",), "another text", {"own": str(own), "versions": "{}"})
    store.write_plan(plan)
    row: dict[str, Any] = {
        "study": "s",
        "problem": "<script>",
        "solver": "=cmd()",
        "versions": "__import__('os')",
    }
    from .rows import KNOWN

    store.append(
        studies.Row(**{**KNOWN, **row, "key": "k", "problem_options": json.dumps({"a": "x"})})
    )
    acts: dict[str, Callable[[], object]] = {
        "status": lambda: studies.status(store),
        "rows": lambda: store.rows("s"),
        "report": lambda: studies.report(store.rows("s"), folder / "report", plan=store.plan("s")),
        "export": lambda: studies.export(store.rows("s"), folder / "rows.csv"),
        "compare": lambda: str(studies.compare(store.rows("s"), store.rows("s"))),
    }
    for said, act in acts.items():
        yield said, harmless(canary, act, may_succeed=True)
    yield "resume a file that has changed", harmless(canary, lambda: studies.resume("s", store))
