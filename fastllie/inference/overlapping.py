"""Reading, enhancing and the caller's own work on a stream of images, all at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

# While one image is written, the next is enhanced and one more decoded: all at work, and memory is bounded
AHEAD = 2


def overlapped(
    images: Iterable[Any], read: Callable[[Any], Any], enhance: Callable[[Callable[[], Any]], Any]
) -> Iterator[Any]:
    """The results of `enhance`, in order, at most AHEAD ahead; see `Enhancer.stream`.

    Args:
        images: Iterated in the thread that reads.
        read: An image to what `enhance` wants; the image may change once it has returned.
        enhance: Is given a function that waits for what was read, in a thread of its own.
    """
    source = iter(images)
    end = object()

    def following(queue: Any) -> Any:
        image = next(source, end)
        if image is end:
            return end
        with torch.cuda.stream(queue):
            return read(image)

    def enhanced(reading: Future[Any], queue: Any) -> Any:
        with torch.cuda.stream(queue):
            return end if reading.result() is end else enhance(reading.result)

    def run() -> Iterator[Any]:
        reader = ThreadPoolExecutor(1, thread_name_prefix="fastllie-read")
        worker = ThreadPoolExecutor(1, thread_name_prefix="fastllie-enhance")
        # the caller's own: a thread begins with the default one, which would not wait for it
        queue = torch.cuda.current_stream() if torch.cuda.is_initialized() else None

        def begun() -> Future[Any]:
            return worker.submit(enhanced, reader.submit(following, queue), queue)

        try:
            waiting = deque(begun() for _ in range(AHEAD))
            while True:
                result = waiting.popleft().result()
                if result is end:
                    return
                waiting.append(begun())
                yield result
        finally:
            for pool in (reader, worker):
                pool.shutdown(wait=False, cancel_futures=True)

    return run()
