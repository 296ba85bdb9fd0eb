"""Tool calls in the text of a reply: how a kind of model writes them, the grammar for that, and a reader.

Both ends come from one string (`formats`): the grammar lets a model write nothing else where it calls a tool, and the
reader reads what it wrote while it arrives. The reader needs no grammar: it also reads what a model without one writes
with other spaces or another order of keys, and what it cannot read stays text. Nothing here imports vLLM.
"""
