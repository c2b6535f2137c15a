"""Makes what an order's id says, or crashes, hangs or fails; imported by name in worker processes."""

import os
import signal
import time

from gridclip.dali_pipes.contract import VideoError
from gridclip.engine.serve.orders import Made


def by_name(order, /, *, skip):
    if order.video_id == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif order.video_id == "hang":
        time.sleep(1000)
    elif order.video_id == "bug":
        raise KeyError("surprise")
    elif order.video_id == "broken":
        raise VideoError("decode", "damaged")
    elif order.video_id == "nothing":
        return
    elif order.video_id == "slow":
        time.sleep(0.3)
    yield Made(f"{order.video_id} by {os.getpid()}".encode(), "text/plain")
