"""A Ray cluster: the same results as without, no image lost with a worker, and a callable for Ray Data."""

import os
import pickle
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import RGB, refused, write_weights
from PIL import Image
from serving import HOME

import fastllie
from fastllie import cli, cluster
from fastllie.cluster import EnhanceBatch, LazyEnhancer
from fastllie.folders import work
from fastllie.folders.record import SUFFIX as RECORD
from fastllie.images import files

pytestmark = pytest.mark.usefixtures("random_weights")


@pytest.fixture(scope="module")
def ray(tmp_path_factory):
    """A Ray of two workers that the tests share and nobody else sees."""
    module = pytest.importorskip("ray")
    token = tmp_path_factory.mktemp("ray") / "token"
    token.write_text(secrets.token_hex(32))
    # pytest's own folders are too deep for the names of its sockets
    place = tempfile.mkdtemp(prefix="ray-")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        module.init(
            address="local",
            num_cpus=2,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100 * 2**20,
            _temp_dir=place,
        )
        yield module
        module.shutdown()
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Ten photographs in three folders, and weights; the working directory is above."""
    monkeypatch.chdir(tmp_path)
    for place in range(10):
        path = Path("photos", ("", "one", "one/two")[place % 3], f"{place:02}.{('png', 'jpg')[place % 2]}")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(RGB, place, 0)).save(path)
    # the workers know only what the package ships, and no random weights
    write_weights("w.safetensors", "sci", seed=3)
    return tmp_path / "photos"


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and not path.name.endswith(RECORD)
    }


def gone(pid, seconds=30):
    """Whether a killed process goes; until Ray buries it, its number is taken."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


# --- folders on two workers


def test_the_command_gives_the_same_bytes(photos, ray, capsys):
    (photos / "one/bad.png").write_bytes((photos / "00.png").read_bytes()[:100])
    command = ["enhance", "photos", "-o", "out", "--method", "sci", "--weights", "w.safetensors"]
    command += ["--strength", "0.7", "--dtype", "bfloat16", "--compare", "--quality", "80"]
    told = {}
    for out, more in (("out", []), ("on ray", ["--ray", "--ray-workers", "2"])):
        command[3] = out
        assert cli.main([*command, *more]) == 1
        told[out] = capsys.readouterr().err.splitlines()
    assert contents("on ray") == contents("out")
    assert len(contents("out")) == 10
    assert told["on ray"][0] == told["out"][0]
    assert told["out"][0].startswith("fastllie enhance: photos/one/bad.png: ")
    assert told["on ray"][-1].startswith("fastllie enhance: 10 done, 0 skipped, 1 failed, ")
    # Ray belongs to the caller
    assert ray.is_initialized()
    before = {path: path.stat().st_mtime_ns for path in Path("on ray").rglob("[!.]*.*")}
    Path("on ray/00.png").unlink()
    (photos / "one/bad.png").unlink()
    assert cli.main([*command, "--ray"]) == 0
    told = capsys.readouterr().err
    assert told.startswith("fastllie enhance: 1 done, 9 skipped, 0 failed, ")
    assert contents("on ray") == contents("out")
    again = {path: path.stat().st_mtime_ns for path in Path("on ray").rglob("[!.]*.*")}
    assert [path for path in again if again[path] != before[path]] == [Path("on ray/00.png")]


def test_a_worker_that_is_killed_loses_no_image(photos, ray):
    for place in range(10, 24):
        Image.fromarray(np.roll(RGB, place, 0)).save(photos / f"{place}.png")
    Path("busy").mkdir()
    killed = []

    def slowly(image):
        mark = Path("busy", str(os.getpid()))
        mark.touch()
        time.sleep(0.2)
        mark.unlink()
        return 255 - image

    def progress(finished, total, failure):
        while finished >= 4 and not killed and (busy := os.listdir("busy")):
            pid = int(busy[0])
            os.kill(pid, signal.SIGKILL)
            # it was in the middle if its mark stayed
            if Path("busy", busy[0]).exists():
                killed.append(pid)

    result = cluster.enhance_folder("photos", "out", slowly, workers=2, progress=progress)
    assert killed
    assert result.failed == []
    assert len(result.done) == 24
    fastllie.enhance_folder("photos", "here", lambda image: 255 - image)
    assert contents("out") == contents("here")
    assert [pid for pid in killed if not gone(pid)] == []


def test_a_file_that_kills_every_worker_is_named(photos, ray):
    for name in ("once.txt", "always.txt"):
        (photos / name).write_text("whole")

    def write(source, target):
        with files.replacing(target) as temporary, open("tries.log", "a") as log:
            temporary.write_text("half")
            print(source.name, file=log, flush=True)
            if source.stem == "always" or Path("tries.log").read_text().count(source.name) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            temporary.write_text(source.read_text())

    failures = []
    result = cluster.enhance_folder(
        "photos",
        "out",
        LazyEnhancer("sci", weights="w.safetensors"),
        others={".txt": write},
        progress=lambda finished, total, failure: failures.append((finished, total, failure)),
    )
    assert [failure.source for failure in result.failed] == [Path("photos/always.txt")]
    assert "its worker died 3 times; the last time: " in str(result.failed[0])
    assert sorted(Path("tries.log").read_text().split()) == ["always.txt"] * 3 + ["once.txt"] * 2
    assert len(result.done) == 11
    assert sorted(contents("out")) == sorted(set(contents("photos")) - {"always.txt"})
    assert Path("out/once.txt").read_text() == "whole"
    assert [finished for finished, _, _ in failures] == list(range(1, 13))
    assert [failure for _, _, failure in failures if failure] == result.failed


@pytest.mark.parametrize("stubborn", [False, True])
def test_an_interrupt_leaves_nothing_half_done(photos, ray, monkeypatch, stubborn):
    if stubborn:
        monkeypatch.setattr(cluster, "PATIENCE", 1.0)

    def write(source, target):
        with files.replacing(target) as temporary:
            temporary.write_text("half")
            for _ in range(1 if stubborn else 600):
                time.sleep(60 if stubborn else 0.1)

    def progress(finished, total, failure):
        if any(name.endswith(".part") for name in os.listdir("out")):
            raise KeyboardInterrupt

    out = os.path.abspath("out")

    def patient(image):
        # however late the other worker comes, it is at work when this one is done
        for _ in range(200):
            if any(name.endswith(".part") for name in os.listdir(out)):
                break
            time.sleep(0.1)
        return image

    (photos / "00.txt").write_text("among the first")
    Path("out").mkdir()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        cluster.enhance_folder(
            "photos",
            "out",
            patient,
            others={".txt": write},
            progress=progress,
        )
    assert time.monotonic() - begin < 30
    assert not [name for name in contents("out") if name.endswith((".part", ".txt"))]

    def patient(image):
        # known by its name as the same, and in no need of waiting
        return image

    result = cluster.enhance_folder("photos", "out", patient)
    assert result.skipped
    assert len(result.skipped) + len(result.done) == 10


def test_what_a_worker_says_is_said_here(photos, ray, capfd):
    def fails(image):
        print("about to fail", file=sys.stderr)
        warnings.warn("a warning", stacklevel=1)

        class OwnError(Exception):
            pass

        raise OwnError("cannot travel")

    result = cluster.enhance_folder("photos/00.png", "out.png", fails)
    assert str(result.failed[0]) == "photos/00.png: OwnError: cannot travel"
    told = capfd.readouterr().err
    assert told.startswith("about to fail\n")
    assert "UserWarning: a warning" in told


def test_what_a_cluster_does_not_have(photos, ray):
    with refused(ValueError, "a worker should take 0.5 GPUs, and the cluster has 0"):
        cluster.enhance_folder("photos", "out", "sci", gpus=0.5)
    with refused(ValueError, "this process has a Ray already: leave address 'auto' out"):
        cluster.enhance_folder("photos", "out", "sci", address="auto")
    assert not Path("out").exists()


# --- Ray Data


def test_map_batches_over_mixed_sizes(photos, ray):
    data = pytest.importorskip("ray.data")
    data.DataContext.get_current().enable_progress_bars = False
    images = [RGB[: 5 + place] for place in range(3)] + [RGB] * 3
    rows = [{"image": image, "name": f"{place}"} for place, image in enumerate(images)]
    settings = {"method": "sci", "weights": "w.safetensors"}
    want = [fastllie.enhance(image, **settings) for image in images]
    given = data.from_items(rows, override_num_blocks=2)
    for brighter in (
        given.map_batches(EnhanceBatch(**settings), batch_size=3),
        given.map_batches(
            EnhanceBatch,
            fn_constructor_kwargs={**settings, "weights": os.path.abspath("w.safetensors")},
            concurrency=1,
        ),
    ):
        got = sorted(brighter.take_all(), key=lambda row: row["name"])
        assert [row["name"] for row in got] == [row["name"] for row in rows]
        for row, image in zip(got, want, strict=True):
            assert row["image"].dtype == np.uint8
            assert np.array_equal(row["image"], image)


# --- without a Ray


def test_a_batch_of_one_size():
    batch = {"image": np.stack([RGB, RGB[::-1]]), "label": np.arange(2)}
    before = batch["image"].copy()
    got = EnhanceBatch("zerodce", strength=0.5)(batch)
    assert list(got) == ["image", "label"]
    assert got["label"] is batch["label"]
    assert got["image"].dtype == np.uint8
    assert np.array_equal(got["image"], fastllie.enhance(before, "zerodce", strength=0.5))
    assert np.array_equal(batch["image"], before)
    assert not np.array_equal(got["image"], before)


@pytest.mark.parametrize("sizes", [(13, 7, 13), (9, 9)])
def test_a_batch_of_objects(sizes):
    images = np.empty(len(sizes), object)
    for place, size in enumerate(sizes):
        images[place] = RGB[:size]
    got = EnhanceBatch("sci", column="photo")({"photo": images})["photo"]
    assert (got.dtype, got.shape) == (object, (len(sizes),))
    for result, image in zip(got, images, strict=True):
        assert np.array_equal(result, fastllie.enhance(image, "sci"))


def test_an_empty_batch():
    nothing = np.empty((0, 4, 4, 3), np.uint8)
    assert EnhanceBatch()({"image": nothing})["image"] is nothing


@pytest.mark.parametrize(
    ("batch", "kind", "told"),
    [
        ({"img": RGB[None], "y": RGB}, ValueError, "no column 'image'; its columns: 'img', 'y'"),
        ({}, ValueError, "no column 'image'; its columns: none"),
        ([RGB], TypeError, "the batch is a list; wanted a dict of arrays: map_batches with batch_format="),
        ({"image": [RGB]}, TypeError, "column 'image' is a list; wanted an array of images"),
        ({"image": RGB}, ValueError, "column 'image': it has the shape (13, 18, 3); wanted (B,H,W,3)"),
        ({"image": RGB[None].astype(np.int64)}, TypeError, "column 'image': image is an array of int64"),
    ],
)
def test_wrong_batches(batch, kind, told):
    with refused(kind, told):
        EnhanceBatch()(batch)


def test_a_wrong_image_is_named():
    images = np.empty(2, object)
    images[:] = [RGB, RGB[..., 0]]
    with refused(ValueError, "column 'image': images[1]: image is an array of shape (13, 18)"):
        EnhanceBatch()({"image": images})


def test_wrong_settings_are_told_at_once():
    with refused(ValueError, "unknown method 'zerodec'"):
        EnhanceBatch("zerodec")
    with refused(ValueError, "unknown device 'cuad'"):
        EnhanceBatch(device="cuad")
    with refused(TypeError, "column must be a name, got 3"):
        EnhanceBatch(column=3)
    with refused(FileNotFoundError, "no such weight file: 'w.pth'"):
        LazyEnhancer(weights="w.pth")
    # of the workers', which may have one
    assert not LazyEnhancer(device="cuda:7").needs_no_gpu
    assert LazyEnhancer(device="cpu").needs_no_gpu
    assert not LazyEnhancer().needs_no_gpu


@pytest.mark.parametrize("pickler", ["pickle", "ray.cloudpickle"])
def test_the_callable_pickles_without_the_network(photos, monkeypatch, pickler):
    mine = EnhanceBatch("sci", weights="w.safetensors", strength=0.5)
    batch = {"image": RGB[None]}
    want = mine(batch)["image"]
    packed = pytest.importorskip(pickler).dumps(mine)
    assert len(packed) < 1000
    monkeypatch.chdir("photos")
    other = pickle.loads(packed)
    assert repr(other) == repr(mine)
    assert np.array_equal(other(batch)["image"], want)


def test_a_task_works_where_its_caller_does(photos, monkeypatch, capsys):
    task = work.Work(lambda image: image, {})
    monkeypatch.setattr(cluster, "_unpacked", lambda packed: (str(photos.parent), task))
    monkeypatch.chdir("/")
    assert cluster._task(b"", "photos/00.png", "out/00.png") == (None, "", ())
    assert os.getcwd() == "/"
    assert (photos.parent / "out/00.png").exists()
    gone = str(photos / "gone")
    monkeypatch.setattr(cluster, "_unpacked", lambda packed: (gone, work))
    error, said, _ = cluster._task(b"", "photos/00.png", "out/00.png")
    assert type(error) is FileNotFoundError
    assert f"this machine of the cluster has no {gone!r}, the working directory of the caller" in str(error)
    assert (said, os.getcwd(), capsys.readouterr().err) == ("", "/", "")


@pytest.fixture
def stand_in(monkeypatch):
    """A Ray that can be begun, ended and no more."""
    calls = []
    found = types.SimpleNamespace(
        is_initialized=lambda: False,
        init=lambda **given: calls.append(given["address"]),
        shutdown=lambda: calls.append("shutdown"),
    )
    return found, calls


def test_a_ray_that_is_begun_here_ends_here(stand_in):
    found, calls = stand_in
    with pytest.raises(KeyboardInterrupt), cluster._connected(found, "host:6379"):
        raise KeyboardInterrupt
    assert calls == ["host:6379", "shutdown"]
    found.is_initialized = lambda: True
    with cluster._connected(found, None):
        pass
    assert calls == ["host:6379", "shutdown"]


def test_a_ray_that_is_not_there(stand_in):
    def init(**given):
        raise RuntimeError("nobody answers")

    found, calls = stand_in
    found.init = init
    told = "no Ray at 'host:6379': nobody answers"
    with refused(ConnectionError, told), cluster._connected(found, "host:6379"):
        pass
    assert calls == []


def test_the_extra_is_named_where_it_is_missing(photos, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    with refused(ImportError, 'a cluster needs Ray: pip install "fastllie[ray]"'):
        cluster.enhance_folder("photos", "out", "sci")
    assert cli.main(["enhance", "photos", "-o", "out", "--ray"]) == 2
    assert 'fastllie enhance: a cluster needs Ray: pip install "fastllie[ray]"' in capsys.readouterr().err
    assert not Path("out").exists()


def test_ray_is_imported_by_nobody_else():
    code = "import sys, fastllie.cluster as c; c.EnhanceBatch(); print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOME)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--ray-workers", "2"], "--ray-workers goes with --ray"),
        (["--ray-address", "auto"], "--ray-address goes with --ray"),
        (["--ray", "--workers", "2"], "with --ray it is --ray-workers"),
        (["--ray", "--ray-workers", "0"], "workers must lie in 1..65536, got 0"),
        (["--ray", "--ray-gpus", "1.5"], "gpus must be a share of one in [0, 1], or a whole number"),
        (["--ray", "--method", "zerodec"], "unknown method 'zerodec'"),
        (["--ray", "--quality", "0"], "quality must lie in 1..100, got 0"),
        (["--ray", "--smooth", "1"], "smooth must lie in [0, 1), got 1.0"),
        (["--ray", "--option", "address=x"], "dawn has no option 'address'"),
        (["--ray", "-o", "photos"], "this would overwrite the input"),
    ],
)
def test_wrong_commands(photos, capsys, flags, told):
    if "--ray" in flags:
        pytest.importorskip("ray")
    assert cli.main(["enhance", "photos", "-o", "out", *flags]) == 2
    assert told in capsys.readouterr().err
    assert not Path("out").exists()


def test_wrong_arguments(photos):
    pytest.importorskip("ray")
    with refused(TypeError, "strength: settings go with the name of a method"):
        cluster.enhance_folder("photos", "out", LazyEnhancer(), strength=1)
    with refused(TypeError, "gpus must be a number, got '1'"):
        cluster.enhance_folder("photos", "out", gpus="1")
    with refused(TypeError, "the method or the writers of others do not pickle: "):
        cluster.enhance_folder("photos", "out", lambda image, lock=sys.stdout: image)
