"""What vLLM's worker is given beside its own methods: weights that change while the engine runs."""

from typing import Any

import torch
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.platforms import current_platform

if torch.cpu._is_amx_tile_supported():
    # vLLM's attention uses the tiles of the CPU and leaves it to others to ask the system for them, as a large enough
    # matrix product does: a prompt of one token would be an illegal instruction. (vLLM 0.31)
    torch.cpu._init_amx()


class TakesWeights:
    """Mixed into vLLM's worker class (its `worker_extension_cls`), which has a `model_runner`."""

    model_runner: Any

    def take_weights(self, folder: str) -> None:
        """Loads the weights of `folder`, a model of the same architecture. vLLM packs every matrix for the CPU when it
        loads it, but for an output head that is tied to the embeddings, which keeps the old ones; so that is packed
        again. (vLLM 0.31)
        """
        self.model_runner.reload_weights(weights_path=folder)
        if current_platform.is_cpu():
            for layer in self.model_runner.get_model().modules():
                if isinstance(layer, VocabParallelEmbedding):
                    layer.quant_method.process_weights_after_loading(layer)
