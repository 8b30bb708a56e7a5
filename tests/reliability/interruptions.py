"""Processes killed while they save, and Ctrl-C in `save` and in `fit`."""

import os
import random
import signal
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from scratchgen import PPCA
from scratchgen.models.estimator import NotFittedError
from scratchgen.models.files import ModelFileError
from tests.reliability.models import KINDS, data, fitted, numbers, said
from tests.reliability.report import Figure

# --- SIGKILL ---------------------------------------------------------------------------------------------------------


def numbered(i):
    """A fitted PPCA whose mean is i in every column; its file has 160 kB."""
    D = 100
    W = np.random.default_rng(0).standard_normal((D, 99))
    return PPCA(99).set_fitted(
        components_=W, mean_=np.full(D, float(i)), noise_variance_=1.0, lower_bounds_=np.zeros(1),
        free_energies_=np.zeros(1), converged_=True, n_iter_=0, n_features_in_=D,
    )  # fmt: skip


def save_until_killed(path, pipe, first):
    """Save models first, first + 1, … and write each number to the pipe after its `save` returned."""
    i = first
    while True:
        numbered(i).save(path, overwrite=True)
        os.write(pipe, i.to_bytes(8, "big"))
        i += 1


def kills(n, seed=0):
    """Kill n processes while they save, and count what is found afterwards."""
    rng, found = random.Random(seed), Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        last = 0
        numbered(last).save(path)
        for _ in range(n):
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    save_until_killed(path, writing, last + 1)
                finally:
                    os._exit(1)
            os.close(writing)
            time.sleep(rng.uniform(0.002, 0.04))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            with os.fdopen(reading, "rb") as pipe:
                acknowledged = pipe.read()
            last = int.from_bytes(acknowledged[-8:], "big") if acknowledged else last
            found["temporary files left by the kill"] += len(list(path.parent.iterdir())) - 1
            try:
                i = int(PPCA.load(path).mean_[0])
            except ModelFileError:
                found["unreadable"] += 1
                continue
            found["stale"] += i < last
            last = i
            if rng.random() < 0.2:
                numbered(last).save(path, overwrite=True)
                found["left after the next save"] += len(list(path.parent.iterdir())) - 1
    return found


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------


@contextmanager
def raised_after(seconds, error):
    """Raise an error in the block after some time; KeyboardInterrupt comes as Ctrl-C does."""

    def interrupt(number, frame):
        raise error

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def told(action, seconds):
    """ "interrupt", "done", or the name of another exception that came out of `action`."""
    try:
        with raised_after(seconds, KeyboardInterrupt):
            action()
    except KeyboardInterrupt:
        return "interrupt"
    except BaseException as error:
        return type(error).__name__
    return "done"


def duration(action):
    """Seconds that an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def interrupts_in_save(n, seed=0):
    """Interrupt `save` n times; count other errors, unreadable files and temporary files left behind."""
    rng, found, count = random.Random(seed), Counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        numbered(0).save(path)
        model = numbered(1)
        length = np.median([duration(lambda: model.save(path, overwrite=True)) for _ in range(5)])
        while count < n:
            word = told(lambda: model.save(path, overwrite=True), rng.uniform(1e-5, float(length)))
            if word == "done":
                continue
            count += 1
            found[word] += 1
            try:
                PPCA.load(path)
            except ModelFileError:
                found["unreadable"] += 1
        model.save(path, overwrite=True)
        found["left after the next save"] += len(list(path.parent.iterdir())) - 1
    return found


def interrupts_in_fit(n, seed=0):
    """Interrupt `fit` of all kinds n times in all; count other errors, and models that are a mixture of two fits."""
    rng, found, count = random.Random(seed), Counter(), 0
    lengths = {kind: duration(lambda kind=kind: KINDS[kind]().fit(data(fitted(kind)))) for kind in KINDS}
    while count < n:
        kind = rng.choice(list(KINDS))
        refit = rng.random() < 0.5
        x = data(fitted(kind))
        model = KINDS[kind]()
        if refit:
            model.fit(x)
        before = numbers(model) if refit else None
        word = told(lambda model=model, x=x: model.fit(x), rng.uniform(1e-5, lengths[kind]))
        if word == "done":
            continue
        count += 1
        found[word] += 1
        try:
            finite = np.isfinite(np.frombuffer(said(model))).all()
            twin = KINDS[kind]().set_fitted(**{k: getattr(model, k) for k in ("n_features_in_", *model._fitted)})
            found["usable" if finite and said(twin) == said(model) else "broken"] += 1
        except NotFittedError:
            found["untouched" if before is None else "broken"] += 1
        except Exception as error:
            found[f"broken {type(error).__name__}"] += 1
    return found


def line(name, target, found, wanted, weakest):
    """A line of the table: `wanted` are the words that may have a count above 0."""
    reached = ", ".join(f"{count} {word}" for word, count in found.items())
    return Figure(
        name, target, reached, all(count == 0 for word, count in found.items() if word not in wanted), weakest
    )


def measure(quick):
    """Figures of interrupted work."""
    share = 20 if quick else 1
    return [
        line(
            f"{1000 // share} processes killed while they save", "0 unreadable, 0 stale, 0 left after the next save",
            kills(1000 // share), {"temporary files left by the kill"},
            "SIGKILL of a process, not a loss of power; fsync of file and folder is called, but no disk was cut off",
        ),
        line(
            f"{250 // share} times Ctrl-C in `save`", "KeyboardInterrupt each time; 0 unreadable, 0 left",
            interrupts_in_save(250 // share), {"interrupt"},
            "random times; Python itself loses a Ctrl-C within a callback of a weak reference, which is not counted",
        ),
        line(
            f"{175 // share} times Ctrl-C in `fit`", "KeyboardInterrupt each time; the model usable or untouched",
            interrupts_in_fit(175 // share), {"interrupt", "usable", "untouched"},
            "half are refits; fits of a few milliseconds, since signals between two steps are what matters",
        ),
    ]  # fmt: skip
