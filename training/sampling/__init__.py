"""Who writes replies: transformers in batches, a policy's sampler while it trains, or a served route."""
