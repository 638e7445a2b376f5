"""Figures as a benchmark finds them, for the tests of tables, files and pages."""

from fastllie.benchmarking.timing import Case, LeftOut, Timed

ABOUT = {"device": "CPU X", "cpu": "CPU X", "cores": 2, "threads": 1, "backends": {"cpu": "C++"}}
ABOUT |= {"fastllie": "0", "torch": "2", "onnxruntime": None, "openvino": None, "python": "3"}


def case(**changes):
    rows = (
        Timed("fastllie", 10.0, 9.0, 12.0, 3, 100.0, 1.0, 1e-7, 140.0, 19.0, 7.0),
        Timed("PyTorch eager", 25.0, 24.0, 30.0, 3, 40.0, 2.5, 0.0, None),
    )
    left = (LeftOut("OpenVINO", "takes about 9 s a call, and has 6 s for 3"),)
    settings = {"method": "sci", "options": {}, "weights": "strong", "size": "600x400", "batch": 1}
    return Case(**{**settings, "dtype": "float32", "rows": rows, "left_out": left, **changes})
