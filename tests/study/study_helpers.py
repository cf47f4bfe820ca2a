"""Runs that are broken off, and the whole ones that they are compared with."""

# With what could make a difference when training goes on: dropout, and gradients that are summed over micro-batches.
HARD = ["--config.lora.lora_dropout=0.1", "--config.train.micro_batch_tokens=600"]
SMOKE = ["sft_text.py:smoke", *HARD]  # as the run of the fixture `finished`
