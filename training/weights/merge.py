"""Writes an adapter into its base: one folder of plain weights, which a CPU serves faster than the two apart."""

from peft import PeftModel

from training.config.sections import MergeRecipe
from training.weights import store


def main(recipe: MergeRecipe) -> str:
    """Runs the recipe and says where the model is. A folder that stands and is newer than the adapter is left alone."""
    done, adapter = recipe.out / "config.json", recipe.adapter / "adapter_model.safetensors"
    if done.exists() and adapter.exists() and done.stat().st_mtime > adapter.stat().st_mtime:
        return f"{recipe.out} is there"
    tokenizer = store.load_tokenizer(recipe.model)
    base = store.load_model(recipe.model, tokenizer, 0)
    with store.told(f"adapter {str(recipe.adapter)!r}"):
        model = PeftModel.from_pretrained(base, recipe.adapter)
    store.save(model, tokenizer, recipe.out)
    return f"{recipe.out} holds {recipe.model.path} with {recipe.adapter}"
