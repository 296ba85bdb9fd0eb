"""What vLLM's worker is given beside its own methods: weights that change while the engine runs."""

import os
import threading
import time
from typing import Any

from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.platforms import current_platform

WATCH_SECONDS = 1.0


class TakesWeights:
    """Mixed into vLLM's worker class (its `worker_extension_cls`), which has a `model_runner`."""

    model_runner: Any
    watching = False

    def take_weights(self, folder: str, for_process: int) -> None:
        """Loads the weights of `folder`, a model of the same architecture. vLLM packs every matrix for the CPU when it
        loads it, but for an output head that is tied to the embeddings, which keeps the old ones; so that is packed
        again. (vLLM 0.31)

        From then on the worker, and so its engine, ends with the process `for_process` of this machine, which may be
        killed: a run that goes on from its checkpoint needs the memory.
        """
        if not self.watching:
            self.watching = True
            threading.Thread(target=_end_with, args=(for_process,), daemon=True).start()
        self.model_runner.reload_weights(weights_path=folder)
        if current_platform.is_cpu():
            for layer in self.model_runner.get_model().modules():
                if isinstance(layer, VocabParallelEmbedding):
                    layer.quant_method.process_weights_after_loading(layer)


def _end_with(process: int) -> None:
    while _lives(process):
        time.sleep(WATCH_SECONDS)
    os._exit(1)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
